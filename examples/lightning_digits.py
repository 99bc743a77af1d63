"""A recurring Lightning training of handwritten digits. The optimizer chooses its batch size.

Start a server (`make serve`), then launch this repeatedly:

    python examples/lightning_digits.py

It needs no download: scikit-learn includes 1,797 digits of 8 x 8 pixels. Each launch shuffles the data and starts
from other random weights, like a retraining on fresh data.

To train in two processes:

    python examples/lightning_digits.py --devices 2

To save checkpoints. If this run is interrupted, launch it again with the same folder, and it resumes its trial:

    python examples/lightning_digits.py --checkpoints a_folder_of_this_run
"""

import argparse
import os

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
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
        self.batch_size = batch_size  # the callback sets this before Lightning calls train_dataloader()
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
        self.log("val_acc", (self.layers(images).argmax(1) == labels).float().mean(), sync_dist=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=1e-3)


def train(
    server_url: str, seed: int, job: JobSpec = JOB, devices: int = 1, checkpoints: str | None = None
) -> ZeusBSOCallback:
    """Train one recurrence in `devices` processes. Raises ZeusBSOTrainFailError if it does not converge."""
    pl.seed_everything(seed, verbose=False)
    torch.set_num_threads(1)  # the network is too small for several threads
    bso = ZeusBSOCallback(server_url, job, monitor="val_acc")
    saving = [] if checkpoints is None else [ModelCheckpoint(checkpoints, save_last=True)]
    trainer = pl.Trainer(
        max_epochs=job.max_epochs,
        accelerator="cpu",
        devices=devices,
        callbacks=[bso, *saving],
        logger=False,
        enable_checkpointing=checkpoints is not None,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Classifier(), Digits(), ckpt_path="last" if checkpoints is not None else None)
    return bso


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--server-url", default="http://127.0.0.1:8000")
    parser.add_argument("--seed", type=int, default=None, help="random by default, as in a real retraining")
    parser.add_argument("--devices", type=int, default=1, help="number of processes")
    parser.add_argument("--checkpoints", default=None, help="folder for this run's checkpoints, to resume from")
    arguments = parser.parse_args()
    seed = arguments.seed
    if seed is None:  # Lightning passes the first process's seed to the other processes in this variable
        seed = int(os.environ.get("PL_GLOBAL_SEED", torch.seed() % 2**32))
    try:
        run = train(arguments.server_url, seed, devices=arguments.devices, checkpoints=arguments.checkpoints)
    except ZeusBSOTrainFailError as failure:
        raise SystemExit(f"Failed: {failure}") from None
    print(f"Batch size {run.batch_size}: {run.result.message if run.result else 'ended without a verdict'}")
