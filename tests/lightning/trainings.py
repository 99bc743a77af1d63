"""Tiny trainings with 64 rows. The test gives their metrics, and they record the batch sizes that they see."""

from collections.abc import Iterable, Sequence
from itertools import repeat
from typing import Any

import lightning.pytorch as pl
import torch
from packaging.version import Version
from torch.utils.data import DataLoader, Dataset, TensorDataset

from tests.databases import connected
from tests.servers import Server

ROWS = 64
OLD_SIZE = 4
"""The batch size of every module and loader before the callback sets another."""
FIRST_SIZE = 16
"""The server's first batch size, the default of `tests.client.jobs.job`."""
RESUMES_WITHIN_EPOCHS = Version(pl.__version__) >= Version("2.6")
"""Whether Lightning resumes in the middle of an epoch where it stopped.

Lightning 2.4 repeats a validation that a checkpoint was saved in. So tests with it save at the end of an epoch.
"""
AT_A_VALIDATION = {"save_on_train_epoch_end": False} if RESUMES_WITHIN_EPOCHS else {}
"""Arguments of a ModelCheckpoint that saves at a validation, which is before the end of the epoch."""


def rows() -> Dataset[Any]:
    """Return the training data. Each row holds its own number."""
    return TensorDataset(torch.arange(ROWS).float().unsqueeze(1))


class Bare(pl.LightningModule):
    """A module without train loader or batch size. Logs the given metrics, one per validation.

    The metric of the sanity check would end the run if the callback reported it.
    """

    def __init__(self, metrics: Iterable[float] = repeat(0.5)) -> None:
        super().__init__()
        self._metrics = iter(metrics)
        self.layer = torch.nn.Linear(1, 1)
        self.sizes_seen: set[int] = set()
        self.rows_seen: list[int] = []

    def training_step(self, batch: Sequence[torch.Tensor], _: int) -> torch.Tensor:
        self.sizes_seen.add(len(batch[0]))
        self.rows_seen += batch[0].flatten().int().tolist()
        return (self.layer(batch[0] / ROWS) ** 2).mean()

    def validation_step(self, batch: Sequence[torch.Tensor], _: int) -> None:
        """Do nothing: the end of the validation logs the metric."""

    def on_validation_epoch_end(self) -> None:
        self.log("val_acc", 1.0 if self.trainer.sanity_checking else next(self._metrics))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1e-3)

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(rows(), batch_size=ROWS)


class Module(Bare):
    """Has its batch size in an attribute."""

    def __init__(self, metrics: Iterable[float] = repeat(0.5)) -> None:
        super().__init__(metrics)
        self.batch_size = OLD_SIZE

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(rows(), batch_size=self.batch_size)


class ModuleWithHparams(Bare):
    """Has its batch size in its hyperparameters."""

    def __init__(self, batch_size: int = OLD_SIZE) -> None:
        super().__init__()
        self.save_hyperparameters()

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(rows(), batch_size=self.hparams.batch_size)


class Data(pl.LightningDataModule):
    """Has its batch size in an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.batch_size = OLD_SIZE

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(rows(), batch_size=self.batch_size)

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(rows(), batch_size=ROWS)


class DataWithHparams(pl.LightningDataModule):
    """Has its batch size in its hyperparameters."""

    def __init__(self, batch_size: int = OLD_SIZE) -> None:
        super().__init__()
        self.save_hyperparameters()

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(rows(), batch_size=self.hparams.batch_size)

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(rows(), batch_size=ROWS)


def trainer(*callbacks: pl.Callback, **options: Any) -> pl.Trainer:
    """Create a quiet Trainer on the CPU for ten epochs, the job's maximum."""
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return pl.Trainer(
        **{"accelerator": "cpu", "devices": 1, "max_epochs": 10, "enable_model_summary": False, **quiet, **options},
        callbacks=list(callbacks),
    )


def fit(callback: pl.Callback, module: pl.LightningModule, *data: Any, **options: Any) -> pl.Trainer:
    """Fit a module, with the given loaders or datamodule, and return the trainer."""
    running = trainer(callback, **options)
    datamodules = [part for part in data if isinstance(part, pl.LightningDataModule)]
    loaders = [part for part in data if not isinstance(part, pl.LightningDataModule)]
    running.fit(module, *loaders, datamodule=datamodules[0] if datamodules else None)
    return running


def reported_epochs(server: Server, job_id_prefix: str) -> list[int]:
    """Return the epochs of all reports on a job's runs, in the order of their arrival."""
    query = (
        "SELECT reports.epoch FROM reports JOIN trials ON reports.trial = trials.id JOIN jobs ON trials.job = jobs.id "
        f"WHERE jobs.job_id LIKE '{job_id_prefix}%' ORDER BY reports.revision"
    )
    with connected(server.database_url) as connection:
        return list(connection.exec_driver_sql(query).scalars())
