"""Small examples for the client's tests: a job whose runs cost what a scripted monitor says, and that monitor."""

import logging
from collections.abc import Iterable
from itertools import repeat
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest

from lightning_bso import BatchSizeOptimizer, BsoClient
from lightning_bso.wire import RegisteredJobSpec, ReportRequest, TrialRecord


def job(**changes: Any) -> dict[str, Any]:
    """A job of its own. One joule costs one, time costs nothing, and the target is 1.0."""
    return {
        "job_id_prefix": f"job-{uuid4().hex}",
        "batch_sizes": [8, 16, 32],
        "default_batch_size": 16,
        "eta_knob": 1.0,
        "target_metric": 1.0,
        "max_epochs": 10,
        "policy": "zeus",  # its choices are easily told beforehand
        "mab_seed": 1,
        "max_power": 100.0,
        "number_of_gpus": 1,
        "gpu_model": "A40",
    } | changes


def registered(**changes: Any) -> RegisteredJobSpec:
    """The same, as it is registered, with a job_id."""
    fields = job(**changes)
    return RegisteredJobSpec.model_validate({"job_id": fields["job_id_prefix"]} | fields)


def report_request(trial: Any, **changes: Any) -> ReportRequest:
    """A first report on a trial, which does not end it."""
    named = {"job_id": trial.job_id, "batch_size": trial.batch_size, "trial_number": trial.trial_number}
    totals = {"time": 1.0, "energy": 10.0, "metric": 0.5, "current_epoch": 1, "report_number": 1}
    return ReportRequest.model_validate(named | totals | changes)


class ScriptedMonitor:
    """Has the face of a ZeusMonitor; every window has taken one second and the next of the given joules."""

    gpu_indices = [0]  # noqa: RUF012 - as in Zeus, an attribute of the object

    def __init__(self, joules: Iterable[float] = repeat(10.0), events: list[str] | None = None) -> None:
        self._joules = iter(joules)
        self.events = [] if events is None else events
        self.is_open = False

    def begin_window(self, key: str, sync_execution: bool = True) -> None:
        """Begin a measurement."""
        assert not self.is_open
        self.is_open = True
        self.events.append("open")

    def end_window(self, key: str, sync_execution: bool = True) -> Any:
        """End it."""
        assert self.is_open
        self.is_open = False
        self.events.append("close")
        return SimpleNamespace(time=1.0, total_energy=next(self._joules))


def begun(url: str, monitor: Any = None, **options: Any) -> BatchSizeOptimizer:
    """A run that has its batch size and has begun to train."""
    bso = BatchSizeOptimizer(monitor or ScriptedMonitor(), url, **{"job": job()} | options)
    bso.get_batch_size()
    bso.on_train_begin()
    return bso


def record(client: BsoClient, bso: Any) -> TrialRecord:
    """The trial of a run or a callback, as the server has stored it."""
    trial = bso.trial if isinstance(bso, BatchSizeOptimizer) else bso
    (found,) = client.list_trials(trial.job_id, offset=trial.trial_number - 1, limit=1).trials
    return found


def only_trial(client: BsoClient, prefix: str) -> TrialRecord:
    """The one trial of the one job whose name begins like this."""
    (job_id,) = (listed.job_id for listed in client.list_jobs().jobs if listed.job_id.startswith(prefix))
    (trial,) = client.list_trials(job_id).trials
    return trial


def number_of_trials(client: BsoClient, prefix: str) -> int:
    """How many trials the jobs have whose names begin like this."""
    return sum(listed.trials for listed in client.list_jobs().jobs if listed.job_id.startswith(prefix))


def warnings(caplog: pytest.LogCaptureFixture, about: str) -> list[str]:
    """What was warned of."""
    return [entry.message for entry in caplog.records if entry.levelno >= logging.WARNING and about in entry.message]
