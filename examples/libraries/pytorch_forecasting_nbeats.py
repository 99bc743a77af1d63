"""A recurring training of pytorch-forecasting. The optimizer chooses how many series a batch has.

Start a server (`make serve`), then launch this repeatedly:

    python examples/libraries/pytorch_forecasting_nbeats.py

The data are made up by the library's own `generate_ar_data`, as in its tutorial on N-BEATS. The statements and
arguments that are marked `# bso` are for the optimizer.
"""

from typing import Any

import lightning.pytorch as pl
from pytorch_forecasting import NBeats, TimeSeriesDataSet
from pytorch_forecasting.data import NaNLabelEncoder
from pytorch_forecasting.data.examples import generate_ar_data
from recurrence import print_run, read_arguments

from lightning_bso import JobSpec, ZeusBSOCallback  # bso


class BatchesSeen(pl.Callback):
    """Notes how many series the batches of the training step have."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, index: int) -> None:
        self.sizes.append(len(batch[0]["encoder_cont"]))


arguments = read_arguments(__doc__.splitlines()[0])
data = generate_ar_data(seasonality=10.0, timesteps=60, n_series=40)
training = TimeSeriesDataSet(
    data[data.time_idx < 50],
    time_idx="time_idx",
    target="value",
    group_ids=["series"],
    categorical_encoders={"series": NaNLabelEncoder().fit(data.series)},
    time_varying_unknown_reals=["value"],
    max_encoder_length=20,
    max_prediction_length=10,
)
validation = TimeSeriesDataSet.from_dataset(training, data, min_prediction_idx=50)
train_loader = training.to_dataloader(train=True, batch_size=64)
val_loader = validation.to_dataloader(train=False, batch_size=128)

job = JobSpec(  # bso
    job_id_prefix="forecasts-of-nbeats",
    batch_sizes=[32, 64, 128, 256],
    default_batch_size=64,
    target_metric=1.0,
    higher_is_better_metric=False,
    max_epochs=15,
)
bso = ZeusBSOCallback(arguments.server_url, job, monitor="val_loss", on_fail="stop")  # bso

model = NBeats.from_dataset(training, learning_rate=0.01, widths=[32, 64], num_blocks=[1, 1])
seen = BatchesSeen()
trainer = pl.Trainer(
    max_epochs=15,
    accelerator="cpu",
    gradient_clip_val=1.0,
    callbacks=[seen, bso],  # bso
    logger=False,
    enable_checkpointing=False,
    enable_progress_bar=False,
    enable_model_summary=False,
)
trainer.fit(model, train_dataloaders=train_loader, val_dataloaders=val_loader)
print_run(bso.batch_size, seen.sizes, bso.result)
