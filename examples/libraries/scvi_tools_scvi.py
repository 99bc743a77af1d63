"""A recurring training of scvi-tools. The optimizer chooses how many cells a batch has.

Start a server (`make serve`), then launch this repeatedly:

    python examples/libraries/scvi_tools_scvi.py

The cells are made up by scvi-tools' own `synthetic_iid`. The statements and arguments that are marked `# bso` are for
the optimizer.
"""

from typing import Any

import lightning.pytorch as pl
import scvi
from recurrence import print_run, read_arguments

from lightning_bso import JobSpec, ZeusBSOCallback  # bso


class BatchesSeen(pl.Callback):
    """Notes how many cells the batches of the training step have."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, index: int) -> None:
        self.sizes.append(len(batch["X"]))


arguments = read_arguments(__doc__.splitlines()[0])
cells = scvi.data.synthetic_iid(batch_size=500)
scvi.model.SCVI.setup_anndata(cells, batch_key="batch")
model = scvi.model.SCVI(cells)

job = JobSpec(  # bso
    job_id_prefix="cells",
    batch_sizes=[32, 64, 128, 256],
    default_batch_size=128,
    target_metric=317.5,
    higher_is_better_metric=False,
    max_epochs=20,
)
bso = ZeusBSOCallback(arguments.server_url, job, monitor="elbo_validation", on_fail="stop")  # bso

seen = BatchesSeen()
model.train(
    max_epochs=20,
    accelerator="cpu",
    check_val_every_n_epoch=1,  # bso
    enable_progress_bar=False,
    callbacks=[seen, bso],  # bso
)
print_run(bso.batch_size, seen.sizes, bso.result)
