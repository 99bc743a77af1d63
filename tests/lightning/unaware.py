"""Training scripts that know nothing of the optimizer, and a launch of them in a process of their own."""

import re
import signal
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import torch

from tests import warm
from tests.databases import free_port
from tests.servers import environment

OWN_SIZE = 16
"""The batch size that the scripts' author has chosen."""
SAMPLES = 256
DEADLINE_S = 120
RANKS = 2

MODEL = f"""
import torch
from torch.utils.data import DataLoader, TensorDataset

def samples():
    features = torch.randn({SAMPLES}, 8, generator=torch.Generator().manual_seed(1))
    return TensorDataset(features, (features[:, 0] > 0).long())

class Model(pl.LightningModule):
    def __init__(self, width: int = 4):
        super().__init__()
        self.save_hyperparameters()
        self.layers = torch.nn.Sequential(torch.nn.Linear(8, width), torch.nn.Linear(width, 2))
        self.sizes = set()

    def training_step(self, batch, index):
        self.sizes.add(len(batch[0]))
        return torch.nn.functional.cross_entropy(self.layers(batch[0]), batch[1])

    def validation_step(self, batch, index):
        self.log("val_loss", torch.nn.functional.cross_entropy(self.layers(batch[0]), batch[1]))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def on_train_end(self):
        print("trained with", max(self.sizes), flush=True)

class Data(pl.LightningDataModule):
    def __init__(self, batch_size: int = {OWN_SIZE}):
        super().__init__()
        self.batch_size = batch_size

    def train_dataloader(self):
        return DataLoader(samples(), batch_size=self.batch_size, shuffle=True)

    def val_dataloader(self):
        return DataLoader(samples(), batch_size={SAMPLES})
"""
QUIET = "accelerator='cpu', logger=False, enable_checkpointing=False, enable_progress_bar=False, max_epochs=3"

PLAIN = f"""
import lightning.pytorch as pl
{MODEL}
pl.seed_everything(1, verbose=False)
trainer = pl.Trainer({QUIET}, enable_model_summary=False)
data = Data()
trainer.fit(Model(), data)
trainer.save_checkpoint("final.ckpt")
print("left at", data.batch_size)
"""
COMMAND_LINE = f"""
import pytorch_lightning as pl
from pytorch_lightning.cli import LightningCLI
{MODEL}
options = dict(save_config_callback=None, seed_everything_default=1, trainer_defaults=dict({QUIET}))
cli = LightningCLI(Model, Data, args=["fit"], **options)
cli.trainer.save_checkpoint("final.ckpt")
print("left at", cli.datamodule.batch_size)
"""


@dataclass(frozen=True)
class Launch:
    """A launch of a script, after its end."""

    exit_status: int
    output: str
    errors: str

    @property
    def sizes(self) -> list[int]:
        """The batch size of each fit."""
        return [int(size) for size in re.findall(r"trained with (\d+)", self.output)]


def launch(
    script: str,
    folder: Path,
    imports: tuple[str, ...] = warm.TRAINING_IMPORTS,
    file_name: str = "train.py",
    **variables: str,
) -> Launch:
    """Run a script in a folder, with these variables set, in a process that has imported these modules."""
    (run,) = _launch(script, folder / file_name, imports, [variables])
    return run


def launch_ranks(script: str, folder: Path, **variables: str) -> list[Launch]:
    """Run a script in two processes that form one run, with the variables that torchrun would set for each of them."""
    run = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "NODE_RANK": "0"}
    ranks = [variables | run | {"LOCAL_RANK": str(rank)} for rank in range(RANKS)]
    return _launch(script, folder / "train.py", warm.TRAINING_IMPORTS, ranks)


def _launch(script: str, file: Path, imports: tuple[str, ...], variables_of_each: list[dict[str, str]]) -> list[Launch]:
    """Run a script in one process for each set of variables, side by side."""
    file.write_text(script)
    inherited = environment()
    inherited.pop("PYTEST_CURRENT_TEST", None)  # of this test, in which no training recurs
    processes = []
    with ExitStack() as files:
        for variables in variables_of_each:
            stdout, stderr = (files.enter_context(TemporaryFile("w+")) for _ in range(2))
            process = warm.start(
                [str(file)], cwd=file.parent, env=inherited | variables, stdout=stdout, stderr=stderr, imports=imports
            )
            processes.append((process, stdout, stderr))
        runs = []
        for process, *outputs in processes:
            try:
                status = process.wait(DEADLINE_S)
            finally:
                process.send_signal(signal.SIGKILL)
            for output in outputs:
                output.seek(0)
            runs.append(Launch(status, *(output.read() for output in outputs)))
        return runs


def automatic(url: str, **variables: str) -> dict[str, str]:
    """Return the variables that let every Trainer use the server."""
    return {"ZEUS_BSO_AUTO": "1", "ZEUS_BSO_SERVER_URL": url} | variables


def final_weights(folder: Path) -> dict[str, Any]:
    """Return the weights that a script has saved at its end, as plain lists."""
    checkpoint = torch.load(folder / "final.ckpt", weights_only=True)
    return {name: tensor.tolist() for name, tensor in checkpoint["state_dict"].items()}
