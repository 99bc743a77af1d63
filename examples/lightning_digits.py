"""A Lightning training that recurs: handwritten digits, with the batch size picked by the optimizer.

Start a server (`make serve`), then launch this again and again:

    python examples/lightning_digits.py

It needs no download: scikit-learn brings 1,797 digits of 8 x 8 pixels along. Each launch shuffles and
starts from other random weights, as a retraining on fresh data would.
"""

import argparse

import lightning.pytorch as pl
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_bso import JobSpec, ZeusBSOCallback, ZeusBSOTrainFailError

JOB = JobSpec(
    job_id_prefix="digits",
    batch_sizes=[8, 16, 32, 64, 128, 256, 512],
    default_batch_size=128,
    target_metric=0.96,
    max_epochs=60,
)


class Digits(pl.LightningDataModule):
    """1,347 digits to train on and 450 to validate with."""

    def __init__(self, batch_size: int = 128) -> None:
        super().__init__()
        self.batch_size = batch_size  # the callback sets this, before train_dataloader() is called
        images, labels = load_digits(return_X_y=True)
        parts = train_test_split(images / 16, labels, test_size=450, random_state=0, stratify=labels)
        train_x, val_x, train_y, val_y = parts
        self.train_data = TensorDataset(torch.tensor(train_x).float(), torch.tensor(train_y))
        self.val_data = TensorDataset(torch.tensor(val_x).float(), torch.tensor(val_y))

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.train_data, batch_size=self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.val_data, batch_size=450)


class Classifier(pl.LightningModule):
    """A network with one hidden layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))

    def training_step(self, batch: list[torch.Tensor], _: int) -> torch.Tensor:
        images, labels = batch
        return nn.functional.cross_entropy(self.layers(images), labels)

    def validation_step(self, batch: list[torch.Tensor], _: int) -> None:
        images, labels = batch
        self.log("val_acc", (self.layers(images).argmax(1) == labels).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=1e-3)


def train(server_url: str, seed: int, job: JobSpec = JOB) -> ZeusBSOCallback:
    """One recurrence. Raises ZeusBSOTrainFailError when it has not converged."""
    pl.seed_everything(seed, verbose=False)
    torch.set_num_threads(1)  # more would only wait for each other: the network is small
    bso = ZeusBSOCallback(server_url, job, monitor="val_acc")
    trainer = pl.Trainer(
        max_epochs=job.max_epochs,
        accelerator="cpu",
        callbacks=[bso],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Classifier(), Digits())
    return bso


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--server-url", default="http://127.0.0.1:8000")
    parser.add_argument("--seed", type=int, default=None, help="random by default, as in a real retraining")
    arguments = parser.parse_args()
    seed = torch.seed() % 2**32 if arguments.seed is None else arguments.seed
    try:
        run = train(arguments.server_url, seed)
    except ZeusBSOTrainFailError as failure:
        raise SystemExit(f"Failed: {failure}") from None
    print(f"Batch size {run.batch_size}: {run.result.message if run.result else 'ended, and no server has judged it'}")
