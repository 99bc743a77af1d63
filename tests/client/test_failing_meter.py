"""A meter that fails during the training ends the trial, but never the training."""

import math
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from lightning_bso import BsoClient
from tests.client.jobs import ScriptedMonitor, job, only_trial, start_run, warnings
from tests.servers import Server


class FailingMonitor(ScriptedMonitor):
    """Raises an error in the calls with these numbers. Both methods count together, from 1."""

    def __init__(self, *failing: int) -> None:
        super().__init__()
        self._calls = 0
        self._failing = failing

    def _fail_in_turn(self) -> None:
        self._calls += 1
        if self._calls in self._failing:
            raise OSError("GPU is lost")

    def begin_window(self, key: str, sync_execution: bool = True) -> None:
        """Begin a measurement."""
        self._fail_in_turn()
        super().begin_window(key, sync_execution)

    def end_window(self, key: str, sync_execution: bool = True) -> Any:
        """End the measurement."""
        self._fail_in_turn()
        return super().end_window(key, sync_execution)


@pytest.mark.parametrize(("turn", "reported"), [(1, 0.0), (2, 0.0), (3, 10.0), (4, 10.0)])
def test_a_meter_that_raises_ends_the_trial_with_the_reason_and_not_the_training(
    server: Server, client: BsoClient, caplog: pytest.LogCaptureFixture, turn: int, reported: float
) -> None:
    fields = job()
    bso = start_run(server.url, FailingMonitor(turn), job=fields)
    for _ in range(4):
        bso.on_evaluate(0.5)
    stored = only_trial(client, fields["job_id_prefix"])
    assert (stored.status, stored.outcome, stored.energy) == (
        "Failed",
        "the energy meter failed: OSError: GPU is lost",
        reported,
    )
    (warning,) = warnings(caplog, "Training continues")
    assert "GPU is lost" in warning


@pytest.mark.parametrize(
    "joules",
    [(10.0, -1000.0), (20.0, -5.0), (-1.0,), (math.nan,), (math.inf,), (1e300,)],
    ids=lambda joules: str(joules),
)
def test_an_invalid_reading_does_not_end_the_training(
    server: Server, client: BsoClient, caplog: pytest.LogCaptureFixture, joules: tuple[float, ...]
) -> None:
    def invalid_then_valid() -> Iterator[float]:
        yield from joules
        while True:
            yield 10.0

    fields = job()
    bso = start_run(server.url, ScriptedMonitor(invalid_then_valid()), job=fields)
    for _ in range(3):
        bso.on_evaluate(0.5)
    assert len(warnings(caplog, "Training continues")) == 1
    stored = only_trial(client, fields["job_id_prefix"])
    assert stored.status == "Failed"
    assert "energy" in (stored.outcome or "")


class StillMonitor(ScriptedMonitor):
    """Its counter does not move in windows of some seconds."""

    def end_window(self, key: str, sync_execution: bool = True) -> Any:
        """End the measurement."""
        super().end_window(key, sync_execution)
        return SimpleNamespace(time=3.0, total_energy=0.0)


def test_a_counter_that_does_not_move_is_no_measurement(
    server: Server, client: BsoClient, caplog: pytest.LogCaptureFixture
) -> None:
    fields = job()
    bso = start_run(server.url, StillMonitor(), job=fields)
    bso.on_evaluate(1.0)  # the target, which would be reached for 0 J
    stored = only_trial(client, fields["job_id_prefix"])
    assert (stored.status, stored.converged) == ("Failed", None)
    assert "energy counter of all GPUs did not move in 3 s" in (stored.outcome or "")
    assert "vGPU" in warnings(caplog, "Training continues")[0]


class HalfStillMonitor(ScriptedMonitor):
    """Watches two GPUs, and only the counter of the first moves."""

    def end_window(self, key: str, sync_execution: bool = True) -> Any:
        """End the measurement."""
        super().end_window(key, sync_execution)
        return SimpleNamespace(time=3.0, total_energy=10.0, gpu_energy={0: 10.0, 1: 0.0})


def test_one_counter_of_several_that_does_not_move_is_no_measurement(server: Server, client: BsoClient) -> None:
    fields = job()
    bso = start_run(server.url, HalfStillMonitor(), job=fields)
    bso.on_evaluate(1.0)
    stored = only_trial(client, fields["job_id_prefix"])
    assert (stored.status, stored.converged) == ("Failed", None)
    assert "the energy counter of GPU 1 did not move in 3 s" in (stored.outcome or "")


def test_a_counter_that_does_not_move_in_many_short_windows_is_no_measurement(
    server: Server, client: BsoClient
) -> None:
    class ShortWindows(ScriptedMonitor):
        def end_window(self, key: str, sync_execution: bool = True) -> Any:
            super().end_window(key, sync_execution)
            return SimpleNamespace(time=0.4, total_energy=10.0, gpu_energy={0: 10.0, 1: 0.0})

    fields = job()
    bso = start_run(server.url, ShortWindows(), job=fields)
    for _ in range(4):
        bso.on_evaluate(0.5)
    stored = only_trial(client, fields["job_id_prefix"])
    assert (stored.status, stored.time) == ("Failed", pytest.approx(0.8))
    assert "the energy counter of GPU 1 did not move in 1.2 s" in (stored.outcome or "")


class InterruptedMonitor(ScriptedMonitor):
    """Runs a function in the middle of each call, as a signal handler may."""

    def __init__(self) -> None:
        super().__init__()
        self.interrupt: Callable[[], object] = lambda: None

    def begin_window(self, key: str, sync_execution: bool = True) -> None:
        """Begin a measurement."""
        self.interrupt()
        super().begin_window(key, sync_execution)

    def end_window(self, key: str, sync_execution: bool = True) -> Any:
        """End the measurement."""
        self.interrupt()
        return super().end_window(key, sync_execution)


def test_a_checkpoint_saved_by_a_signal_in_the_middle_of_a_measurement_changes_nothing(
    server: Server, client: BsoClient
) -> None:
    fields, monitor = job(), InterruptedMonitor()
    bso = start_run(server.url, monitor, job=fields)
    monitor.interrupt = bso.state_dict
    for metric in (0.5, 0.5, 1.0):
        bso.on_evaluate(metric)
    stored = only_trial(client, fields["job_id_prefix"])
    assert (stored.converged, stored.energy, stored.time) == (True, 30.0, 3.0)


@pytest.mark.parametrize("error", [RuntimeError("broken"), KeyboardInterrupt(), MemoryError()])
def test_an_error_in_the_training_closes_the_window_and_a_checkpoint_still_holds_it(
    server: Server, error: BaseException
) -> None:
    monitor = ScriptedMonitor()
    bso = start_run(server.url, monitor)
    bso.on_evaluate(0.5)
    bso.abandon(error)
    assert not monitor.is_open
    assert bso.state_dict()["energy_j"] == 20.0
