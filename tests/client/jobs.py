"""Helpers for the client's tests: jobs, runs, and a monitor with scripted energy readings."""

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
    """Return the fields of a new job. The cost is the energy in joules, and the target is 1.0."""
    return {
        "job_id_prefix": f"job-{uuid4().hex}",
        "batch_sizes": [8, 16, 32],
        "default_batch_size": 16,
        "eta_knob": 1.0,
        "target_metric": 1.0,
        "max_epochs": 10,
        "policy": "zeus",  # its choices are easy to predict
        "mab_seed": 1,
        "max_power": 100.0,
        "number_of_gpus": 1,
        "gpu_model": "A40",
    } | changes


def registered(**changes: Any) -> RegisteredJobSpec:
    """Return a new job's spec for registration, with a job_id."""
    fields = job(**changes)
    return RegisteredJobSpec.model_validate({"job_id": fields["job_id_prefix"]} | fields)


def report_request(trial: Any, **changes: Any) -> ReportRequest:
    """Return a first report on a trial. It does not end the trial."""
    keys = {"job_id": trial.job_id, "batch_size": trial.batch_size, "trial_number": trial.trial_number}
    values = {"time": 1.0, "energy": 10.0, "metric": 0.5, "current_epoch": 1, "report_number": 1}
    return ReportRequest.model_validate(keys | values | changes)


class ScriptedMonitor:
    """Has the interface of a ZeusMonitor. Every window takes one second and uses the next of the given joules."""

    gpu_indices = [0]  # noqa: RUF012 - nobody changes the list

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
        """End the measurement."""
        assert self.is_open
        self.is_open = False
        self.events.append("close")
        return SimpleNamespace(time=1.0, total_energy=next(self._joules))


def start_run(url: str, monitor: Any = None, **options: Any) -> BatchSizeOptimizer:
    """Return a run that has its batch size and has started to train."""
    bso = BatchSizeOptimizer(monitor or ScriptedMonitor(), url, **{"job": job()} | options)
    bso.get_batch_size()
    bso.on_train_begin()
    return bso


def stored_trial(client: BsoClient, bso: Any) -> TrialRecord:
    """Return the trial of a run or a callback, as the server has stored it."""
    trial = bso.trial if isinstance(bso, BatchSizeOptimizer) else bso
    (stored,) = client.list_trials(trial.job_id, offset=trial.trial_number - 1, limit=1).trials
    return stored


def only_trial(client: BsoClient, prefix: str) -> TrialRecord:
    """Return the only trial of the only job whose id starts with this prefix."""
    (job_id,) = (listing.job_id for listing in client.list_jobs().jobs if listing.job_id.startswith(prefix))
    (trial,) = client.list_trials(job_id).trials
    return trial


def number_of_trials(client: BsoClient, prefix: str) -> int:
    """Return the number of trials of all jobs whose id starts with this prefix."""
    return sum(listing.trials for listing in client.list_jobs().jobs if listing.job_id.startswith(prefix))


def warnings(caplog: pytest.LogCaptureFixture, text: str) -> list[str]:
    """Return the logged warnings that contain a text."""
    return [entry.message for entry in caplog.records if entry.levelno >= logging.WARNING and text in entry.message]
