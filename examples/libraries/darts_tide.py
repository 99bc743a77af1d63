"""A recurring training of darts. The optimizer chooses how many windows of the series a batch has.

Start a server (`make serve`), then launch this repeatedly:

    python examples/libraries/darts_tide.py

The series is made up by darts' own `timeseries_generation`. darts imports `pytorch_lightning`, and the callback follows
it. The statements and arguments that are marked `# bso` are for the optimizer.
"""

from typing import Any

import numpy as np
import pytorch_lightning as pl
from darts.models import TiDEModel
from darts.utils.timeseries_generation import gaussian_timeseries, sine_timeseries
from recurrence import print_run, read_arguments

from lightning_bso import JobSpec, ZeusBSOCallback  # bso


class BatchesSeen(pl.Callback):
    """Notes how many windows the batches of the training step have."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, index: int) -> None:
        self.sizes.append(len(batch.past_target))


arguments = read_arguments(__doc__.splitlines()[0])
waves = sine_timeseries(length=800, value_frequency=1 / 24) + gaussian_timeseries(length=800, std=0.1)
train, val = waves.astype(np.float32).split_before(650)

job = JobSpec(  # bso
    job_id_prefix="waves-of-tide",
    batch_sizes=[16, 32, 64, 128],
    default_batch_size=32,
    target_metric=0.03,
    higher_is_better_metric=False,
    max_epochs=20,
)
bso = ZeusBSOCallback(arguments.server_url, job, monitor="val_loss", on_fail="stop")  # bso

seen = BatchesSeen()
model = TiDEModel(
    input_chunk_length=48,
    output_chunk_length=12,
    hidden_size=32,
    batch_size=32,
    n_epochs=20,
    pl_trainer_kwargs={
        "accelerator": "cpu",
        "callbacks": [seen, bso],  # bso
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    },
)
model.fit(train, val_series=val)
print_run(bso.batch_size, seen.sizes, bso.result)
