"""`check` says how the callback makes sure that the batch size has reached the training."""

from collections import UserDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.nn.utils.rnn import pack_sequence
from torch.utils.data import DataLoader, Subset

from lightning_bso import BsoClient, ZeusBSOCallback
from tests.client.jobs import ScriptedMonitor, job, only_trial
from tests.lightning.trainings import FIRST_SIZE, OLD_SIZE, Module, fit, rows
from tests.servers import Server

pytestmark = pytest.mark.filterwarnings("ignore:.*max_epochs", "ignore:.*batch_size.*ambiguous")


@dataclass
class Pair:
    """A batch as a dataclass."""

    name: str
    inputs: torch.Tensor


class Graphs:
    """A batch of graphs, whose tensors have one entry for each node."""

    def __init__(self, rows: torch.Tensor) -> None:
        self.num_graphs, self.nodes = len(rows), rows.repeat(3, 1)


class Tensors:
    """A batch that says its size, as a TensorDict does."""

    def __init__(self, rows: torch.Tensor) -> None:
        self.batch_size = rows.shape[:1]


class Streaming(Module):
    """Builds batches of any kind behind a loader that shows no batch size."""

    def __init__(self, wrap: Callable[[torch.Tensor], Any], *, ignores: bool = False) -> None:
        super().__init__()
        self.wrap, self.ignores, self.seen = wrap, ignores, 0

    def train_dataloader(self) -> Any:
        return self

    def __iter__(self) -> Iterator[Any]:
        size = OLD_SIZE if self.ignores else self.batch_size
        return (self.wrap(batch[0]) for batch in DataLoader(rows(), batch_size=size))

    def training_step(self, batch: Any, _: int) -> torch.Tensor:
        self.seen += 1
        return self.layer(torch.ones(1, 1)).mean()


def checking(server: Server, check: Any) -> ZeusBSOCallback:
    """Return a callback that checks in this way."""
    return ZeusBSOCallback(server.url, job(), energy_monitor=ScriptedMonitor(), check=check)


KINDS = {
    "tensor": lambda rows: rows,
    "list": lambda rows: ["a name", rows],
    "dict": lambda rows: {"name": "a name", "inputs": {"rows": rows}},
    "UserDict": lambda rows: UserDict(inputs=rows),
    "dataclass": lambda rows: Pair("a name", rows),
    "graphs": Graphs,
    "TensorDict": Tensors,
    "PackedSequence": lambda rows: pack_sequence([torch.ones(3)] * len(rows)),
    "lists of images and boxes": lambda rows: (
        [torch.ones(3, 5)] * len(rows),
        [{"boxes": torch.ones(2, 4)}] * len(rows),
    ),
    "images that are not collated": lambda rows: [torch.ones(3, 5)] * len(rows),
    "a tuple of samples": lambda rows: tuple((torch.ones(3), torch.ones(5)) for _ in rows),
    "samples that are not collated": lambda rows: [{"inputs": torch.ones(3)} for _ in rows],
    "texts": lambda rows: {"texts": ["a text"] * len(rows)},
}


@pytest.mark.filterwarnings("error:.*cannot see")
@pytest.mark.parametrize("kind", KINDS)
def test_it_may_look_at_the_first_batch(server: Server, kind: str) -> None:
    fit(checking(server, "batch"), module := Streaming(KINDS[kind]), max_epochs=1)
    assert module.seen == 64 // FIRST_SIZE


@pytest.mark.parametrize("kind", KINDS)
def test_a_first_batch_of_another_size_ends_the_trial_before_its_step(
    server: Server, client: BsoClient, kind: str
) -> None:
    callback = checking(server, "batch")
    module = Streaming(KINDS[kind], ignores=True)
    with pytest.raises(MisconfigurationException, match=r"batch size 16 did not reach.*has .*\b4 (or .*)?samples"):
        fit(callback, module, max_epochs=1)
    assert module.seen == 0
    assert "did not reach" in str(only_trial(client, callback.job.job_id_prefix).outcome)


def test_an_only_batch_may_be_smaller(server: Server) -> None:
    class Small(Module):
        def train_dataloader(self) -> DataLoader[Any]:
            return DataLoader(Subset(rows(), range(5)), batch_size=self.batch_size)

    fit(checking(server, "batch"), module := Small(), max_epochs=1)
    assert module.sizes_seen == {5}


def test_a_first_batch_that_shows_no_size_is_warned_of(server: Server) -> None:
    with pytest.warns(UserWarning, match=r"cannot see how many samples the first batch has \(builtins\.int\)"):
        fit(checking(server, "batch"), Streaming(len), max_epochs=1)


def test_the_loader_may_hold_less_than_a_step_uses(server: Server) -> None:
    class Sampling(Module):
        def train_dataloader(self) -> DataLoader[Any]:
            return DataLoader(rows(), batch_size=1)

        def training_step(self, batch: Any, index: int) -> torch.Tensor:
            return super().training_step([torch.rand(self.batch_size, 1)], index)

    with pytest.raises(MisconfigurationException, match="did not reach the train loader"):
        fit(checking(server, "loader"), Sampling(), max_epochs=1)
    fit(checking(server, "off"), module := Sampling(), max_epochs=1)
    assert module.sizes_seen == {FIRST_SIZE}
