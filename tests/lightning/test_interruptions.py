"""A fit that fails with an error ends its trial. An interrupted fit leaves its trial open, so it can resume."""

import signal
from collections.abc import Iterator, Sequence
from itertools import repeat
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.tuner import Tuner
from lightning.pytorch.utilities.exceptions import SIGTERMException

from lightning_bso import BsoClient, ZeusBSOCallback
from tests.client.jobs import ScriptedMonitor, job, only_trial
from tests.lightning.trainings import Module, fit, reported_epochs, trainer
from tests.servers import Server


@pytest.fixture(autouse=True)
def _signals_as_before() -> Iterator[None]:
    """Restore the signal handlers: after a Ctrl-C Lightning ignores all further ones in the process."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class Breaking(Module):
    """Raises in the first step of its second epoch."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self._error = error

    def training_step(self, batch: Sequence[torch.Tensor], index: int) -> torch.Tensor:
        if self.trainer.current_epoch == 1:
            raise self._error
        return super().training_step(batch, index)


def stored(client: BsoClient, callback: ZeusBSOCallback) -> tuple[Any, ...]:
    """Return status, outcome and energy of the callback's trial."""
    trial = only_trial(client, callback.job.job_id_prefix)
    return trial.status, trial.outcome, trial.energy


def test_an_error_in_the_training_ends_the_trial_with_its_reason(callback: ZeusBSOCallback, client: BsoClient) -> None:
    with pytest.raises(ValueError, match="no such digit"):
        fit(callback, Breaking(ValueError("no such digit")))
    assert stored(client, callback) == ("Failed", "ValueError: no such digit", 10.0)


@pytest.mark.parametrize("policy", ["zeus", "gp-ucb"])
def test_a_batch_size_that_does_not_fit_in_memory_is_not_given_again(
    policy: str, server: Server, client: BsoClient
) -> None:
    fields, out_of_memory = job(policy=policy), torch.OutOfMemoryError("Tried to allocate 20 GiB")
    first = ZeusBSOCallback(server.url, fields, energy_monitor=ScriptedMonitor())
    with pytest.raises(torch.OutOfMemoryError):
        fit(first, Breaking(out_of_memory))
    failed = only_trial(client, fields["job_id_prefix"])
    assert (failed.converged, failed.energy) == (False, 20.0)
    assert str(failed.outcome).startswith("batch size 16 does not fit in memory; ")
    for _ in range(12):
        later = ZeusBSOCallback(server.url, fields, energy_monitor=ScriptedMonitor())
        fit(later, Module([1.0]))
        assert later.batch_size != 16


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes"),
    ],
)
def test_other_words_for_a_lack_of_memory_are_understood(
    error: Exception, callback: ZeusBSOCallback, client: BsoClient
) -> None:
    with pytest.raises(type(error)):
        fit(callback, Breaking(error))
    assert "does not fit in memory" in str(only_trial(client, callback.job.job_id_prefix).outcome)


class LargeAtFirst(Module):
    """Runs out of memory before the first training step."""

    def __init__(self, moment: str) -> None:
        super().__init__()
        self._moment = moment

    def configure_optimizers(self) -> torch.optim.Optimizer:
        if self._moment == "set-up":
            raise torch.OutOfMemoryError("Tried to allocate 20 GiB")
        return super().configure_optimizers()

    def validation_step(self, batch: Sequence[torch.Tensor], index: int) -> None:
        if self.trainer.sanity_checking:
            raise torch.OutOfMemoryError("Tried to allocate 20 GiB")


@pytest.mark.parametrize("moment", ["set-up", "sanity check"])
def test_a_lack_of_memory_before_the_training_says_nothing_of_the_batch_size(
    moment: str, callback: ZeusBSOCallback, client: BsoClient
) -> None:
    with pytest.raises(torch.OutOfMemoryError):
        fit(callback, LargeAtFirst(moment), num_sanity_val_steps=1)
    assert stored(client, callback) == ("Failed", "OutOfMemoryError: Tried to allocate 20 GiB", 0.0)


def test_an_error_before_the_first_step_ends_the_trial_with_its_reason(
    callback: ZeusBSOCallback, client: BsoClient
) -> None:
    class Unready(Module):
        def configure_optimizers(self) -> Any:
            raise RuntimeError("no such optimizer")

    with pytest.raises(RuntimeError, match="no such optimizer"):
        fit(callback, Unready())
    assert stored(client, callback) == ("Failed", "RuntimeError: no such optimizer", 0.0)


def test_ctrl_c_leaves_the_trial_open(callback: ZeusBSOCallback, client: BsoClient) -> None:
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        fit(callback, Breaking(KeyboardInterrupt()))
    assert stored(client, callback) == ("Dispatched", None, 10.0)


def test_a_preemption_leaves_the_trial_open(callback: ZeusBSOCallback, client: BsoClient) -> None:
    with pytest.raises(SIGTERMException):
        fit(callback, Breaking(SIGTERMException()))
    assert stored(client, callback) == ("Dispatched", None, 10.0)


def test_an_error_in_a_validation_after_the_fit_leaves_an_interrupted_trial_open(
    callback: ZeusBSOCallback, client: BsoClient
) -> None:
    class BreakingLater(Breaking):
        def on_validation_start(self) -> None:
            if self.trainer.state.fn == "validate":
                raise ValueError("no such data")

    module, running = BreakingLater(KeyboardInterrupt()), trainer(callback)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        running.fit(module)
    with pytest.raises(ValueError, match="no such data"):
        running.validate(module)
    assert stored(client, callback) == ("Dispatched", None, 10.0)


def test_an_interrupted_run_goes_on_in_its_trial_when_it_is_launched_again(server: Server, client: BsoClient) -> None:
    fields = job()
    interrupted = ZeusBSOCallback(server.url, fields, run_id="slurm-17", energy_monitor=ScriptedMonitor())
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        fit(interrupted, Breaking(KeyboardInterrupt()))
    resumed = ZeusBSOCallback(server.url, fields, run_id="slurm-17", energy_monitor=ScriptedMonitor())
    fit(resumed, Module([0.5, 1.0]))
    trial = only_trial(client, fields["job_id_prefix"])
    assert (trial.converged, trial.energy, trial.current_epoch) == (True, 30.0, 2)
    assert resumed.batch_size == interrupted.batch_size


def test_looking_for_a_learning_rate_beforehand_leaves_no_trial_open(
    callback: ZeusBSOCallback, client: BsoClient, tmp_path: Path
) -> None:
    class WithRate(Module):
        def __init__(self) -> None:
            super().__init__(repeat(1.0))
            self.lr = 1e-3

    running = trainer(callback, default_root_dir=tmp_path)
    module = WithRate()
    Tuner(running).lr_find(module, num_training=5, min_lr=1e-4, max_lr=1e-2)
    running.fit(module)
    assert callback.result is not None
    assert callback.result.converged
    assert client.describe(str(callback.job_id)).running == 0


def test_a_broken_run_does_not_hold_its_batch_size(callback: ZeusBSOCallback, server: Server) -> None:
    with pytest.raises(ZeroDivisionError):
        fit(callback, Breaking(ZeroDivisionError()))
    again = ZeusBSOCallback(server.url, callback.job, energy_monitor=ScriptedMonitor())
    fit(again, Module([1.0]))
    assert (again.trial_number, again.batch_size) == (2, callback.batch_size)
    assert reported_epochs(server, callback.job.job_id_prefix) == [1, 1]
