"""A batch size with which the training always breaks is not given again, and the error says so."""

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.utils.data import DataLoader, Subset

from lightning_bso import BsoClient, ZeusBSOCallback
from tests.client.jobs import ScriptedMonitor, job
from tests.lightning.trainings import Bare, Module, fit, rows
from tests.servers import Server

pytestmark = pytest.mark.filterwarnings("ignore:.*max_epochs", "ignore:.*Total length of")


class Breaking(Module):
    """Breaks in its first step with a batch of 32, each time with other numbers."""

    def training_step(self, batch: Sequence[torch.Tensor], index: int) -> torch.Tensor:
        if len(batch[0]) == 32:
            raise RuntimeError(f"cannot pool {random.randrange(1000)} rows at {hex(id(object()))}")
        return super().training_step(batch, index)


@pytest.fixture
def launch(server: Server) -> Callable[..., tuple[int | None, BaseException | None]]:
    """A function that launches a run of one job. It returns the batch size, and the error that ended the run."""
    fields = job()

    def once(module: Any, *data: Any, **options: Any) -> tuple[int | None, BaseException | None]:
        callback = ZeusBSOCallback(server.url, fields, energy_monitor=ScriptedMonitor())
        error = None
        try:
            fit(callback, module, *data, **options)
        except Exception as raised:
            error = raised
        once.callback = callback  # type: ignore[attr-defined]
        return callback.batch_size, error

    return once


def notes(error: BaseException | None) -> str:
    """Return the notes that the callback has added to an error."""
    return " ".join(getattr(error, "__notes__", ()))


def test_after_the_same_error_twice_a_batch_size_is_not_given_again(launch: Any, client: BsoClient) -> None:
    launches = [launch(Breaking([1.0])) for _ in range(8)]
    assert [size for size, _ in launches][:4] == [16, 8, 32, 32]
    assert 32 not in [size for size, _ in launches[4:]]
    assert [error for size, error in launches if size != 32] == [None] * 6
    (_, first), (_, second) = launches[2:4]
    assert notes(first) == ""
    assert "batch size 32 is ruled out until the job is reset: it ended in the same error twice" in notes(second)
    (of_32,) = (size for size in client.describe(launch.callback.job_id).batch_sizes if size.batch_size == 32)
    assert "the same error twice before its first epoch: RuntimeError: cannot pool" in str(of_32.ruled_out)


def test_a_batch_size_with_fewer_batches_than_the_validations_interval_is_not_given_again(launch: Any) -> None:
    launches = [launch(Module([1.0]), val_check_interval=4) for _ in range(6)]
    assert [size for size, _ in launches][:3] == [16, 8, 32]
    assert 32 not in [size for size, _ in launches[3:]]
    _, error = launches[2]
    assert isinstance(error, ValueError)
    assert "val_check_interval=4 is more than the 2 batches of an epoch with batch size 32: give" in notes(error)
    assert "is ruled out until the job is reset: it cannot be trained with: val_check_interval=4" in notes(error)


def test_a_batch_size_with_too_few_batches_in_all_epochs_is_not_given_again(launch: Any) -> None:
    # 64 rows in 2 epochs: 16, 8 and 4 batches
    launches = [
        launch(Module([1.0]), max_epochs=2, check_val_every_n_epoch=None, val_check_interval=5) for _ in range(6)
    ]
    assert [size for size, _ in launches][:3] == [16, 8, 32]
    assert 32 not in [size for size, _ in launches[3:]]
    _, error = launches[2]
    assert isinstance(error, MisconfigurationException)
    assert "none falls due in this fit: val_check_interval=5 is more than the 4 batches of 2 epochs" in str(error)
    assert "with batch size 32: lower val_check_interval, raise max_epochs, or remove the batch size" in notes(error)
    assert "is ruled out until the job is reset: it cannot be trained with: val_check_interval=5" in notes(error)


def test_a_batch_size_that_the_data_do_not_fill_is_not_given_again(launch: Any) -> None:
    loader = DataLoader(Subset(rows(), range(20)), batch_size=4, drop_last=True)
    launches = [launch(Bare([1.0]), loader) for _ in range(6)]
    assert [size for size, _ in launches][:3] == [16, 8, 32]
    assert 32 not in [size for size, _ in launches[3:]]
    _, error = launches[2]
    assert isinstance(error, MisconfigurationException)
    assert "it cannot be trained with: no training step was run" in notes(error)


def test_data_that_are_missing_say_nothing_about_a_batch_size(launch: Any) -> None:
    class Empty(Module):
        def train_dataloader(self) -> DataLoader[Any]:
            return DataLoader(Subset(rows(), []), batch_size=self.batch_size)

    sizes = [launch(module)[0] for module in (Module([1.0]), Empty(), Empty(), Empty(), Module([1.0]))]
    assert sizes == [16, 8, 8, 8, 8]


def test_an_error_after_an_epoch_that_no_validation_ended_says_nothing_about_a_batch_size(launch: Any) -> None:
    class Late(Module):
        def on_train_epoch_start(self) -> None:
            if self.trainer.current_epoch == 2:
                raise RuntimeError("the disk is full")

    launch(Module([1.0]), check_val_every_n_epoch=5)
    launches = [launch(Late([1.0]), check_val_every_n_epoch=5) for _ in range(3)]
    assert [(size, notes(error)) for size, error in launches] == [(8, "")] * 3


def test_a_set_up_that_is_wrong_says_nothing_about_a_batch_size(launch: Any) -> None:
    class Fixed(Bare):
        batch_size = 16

        def train_dataloader(self) -> DataLoader[Any]:
            return DataLoader(rows(), batch_size=16)

    launches = [launch(Fixed([1.0])) for _ in range(5)]
    assert [size for size, _ in launches] == [16, 8, 8, 8, 8]
    assert all(isinstance(error, MisconfigurationException) for _, error in launches[1:])
    assert [notes(error) for _, error in launches] == [""] * 5
    assert launch(Module([1.0])) == (8, None)


def test_the_default_is_given_again_whatever_it_ends_in(launch: Any) -> None:
    loader = DataLoader(Subset(rows(), range(10)), batch_size=4, drop_last=True)
    launches = [launch(Bare([1.0]), loader) for _ in range(3)]
    assert [size for size, _ in launches] == [16, 16, 16]
    assert [notes(error) for _, error in launches] == [""] * 3
