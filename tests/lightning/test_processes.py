"""Real training processes and real servers. Each test kills or stops one of them without warning."""

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest

from lightning_bso import BsoClient, ZeusBSOCallback, transport
from tests import warm
from tests.client.jobs import ScriptedMonitor, job, only_trial
from tests.lightning.trainings import Module, fit, reported_epochs, trainer
from tests.servers import ROOT, Server, environment

DEADLINE_S = 30
LEASE_S = 1


@pytest.fixture
def short_lease(tmp_path: Path) -> Iterator[Server]:
    """A server for one test, with a short lease."""
    with Server(f"sqlite:///{tmp_path / 'bso.db'}", tmp_path, ZEUS_BSO_LEASE_S=str(LEASE_S)) as running:
        yield running


class Training:
    """A training process that the test advances epoch by epoch."""

    def __init__(self, process: warm.Process) -> None:
        self.process = process

    def read(self) -> str:
        """Read the next line of its output."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def read_until(self, line: str) -> None:
        """Read its output up to this line. The process must not end before."""
        while (output := self.read()) != line:
            assert output, f"the process ended with {self.process.wait()} before it printed {line!r}"

    def begin_epoch(self) -> None:
        """Let it train, validate and report one epoch."""
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()


@contextmanager
def training(url: str, fields: dict[str, Any], *metrics: float, **variables: str) -> Iterator[Training]:
    """Start a training process, and kill it at the end if it is still running."""
    command = [warm.TRAINING, url, json.dumps(fields), *map(str, metrics)]
    with Path(os.devnull).open("w") as nowhere:
        process = warm.start(
            command, cwd=ROOT, env=environment(**variables), stdout=None, stderr=nowhere, pipe_stdin=True
        )
    try:
        yield Training(process)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def test_the_batch_size_of_a_killed_training_is_dispatched_again_and_the_job_continues(
    short_lease: Server,
) -> None:
    fields = job(batch_sizes=[8, 16], num_pruning_rounds=1)
    with training(short_lease.url, fields, 0.5, 0.5) as killed:
        killed.read_until("epoch 0")
        killed.begin_epoch()
        killed.read_until("epoch 1")
        killed.process.send_signal(signal.SIGKILL)
        assert killed.process.wait() == -signal.SIGKILL
    client = BsoClient(short_lease.url)
    lost = only_trial(client, fields["job_id_prefix"])
    assert (lost.batch_size, lost.type, lost.status) == (16, "Pruning", "Dispatched")
    (job_id,) = (listed.job_id for listed in client.list_jobs().jobs)

    deadline = time.monotonic() + DEADLINE_S
    calls = short_lease.calls
    while (stand_in := calls.trial(job_id))["type"] != "Pruning":  # until the lease has expired
        assert time.monotonic() < deadline
        calls.end(stand_in)
    assert stand_in["batch_size"] == 16
    calls.end(stand_in)
    assert "lease expired" in str(client.list_trials(job_id).trials[0].outcome)

    dispatched = []
    for _ in range(3):
        callback = ZeusBSOCallback(short_lease.url, fields, energy_monitor=ScriptedMonitor())
        fit(callback, Module([1.0]))
        dispatched.append((client.list_trials(job_id).trials[-1].type, callback.batch_size))
    assert dispatched[:2] == [("Pruning", 16), ("Pruning", 8)]
    assert dispatched[2][0] == "MAB"
    assert client.describe(job_id).stage == "MAB"


def test_a_training_whose_server_is_killed_and_restarted_ends_normally(short_lease: Server) -> None:
    fields = job()
    with training(short_lease.url, fields, 0.1, 0.2, 0.3, 1.0) as running:
        running.read_until("batch size 16")
        running.read_until("epoch 0")
        running.begin_epoch()
        running.read_until("epoch 1")
        short_lease.kill()
        running.begin_epoch()
        running.read_until("epoch 2")
        short_lease.start()
        running.begin_epoch()
        running.read_until("epoch 3")
        running.begin_epoch()
        running.read_until("converged: True")
        assert running.process.wait(DEADLINE_S) == 0
    assert reported_epochs(short_lease, fields["job_id_prefix"]) == [1, 2, 3, 4]
    stored = only_trial(BsoClient(short_lease.url), fields["job_id_prefix"])
    assert (stored.converged, stored.energy, stored.time) == (True, 40.0, 4.0)


def test_a_server_that_hangs_for_some_epochs_holds_each_validation_up_for_the_timeout_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "READ_TIMEOUT_S", 0.8)
    hanging = Server(f"sqlite:///{tmp_path / 'bso.db'}", tmp_path)  # with a long lease, so without heartbeats
    began_at: list[float] = []

    class Hanging(pl.Callback):
        def on_train_epoch_start(self, running: pl.Trainer, *_: Any) -> None:
            began_at.append(time.monotonic())
            if running.current_epoch in (1, 4):
                assert hanging.process is not None
                os.killpg(hanging.process.pid, signal.SIGSTOP if running.current_epoch == 1 else signal.SIGCONT)

    with hanging:
        fields = job()
        callback = ZeusBSOCallback(hanging.url, fields, energy_monitor=ScriptedMonitor())
        trainer(callback, Hanging()).fit(Module([0.1, 0.2, 0.3, 0.4, 1.0]))
        assert reported_epochs(hanging, fields["job_id_prefix"]) == [1, 2, 3, 4, 5]
        assert only_trial(BsoClient(hanging.url), fields["job_id_prefix"]).converged
    assert [lasted > 0.8 for lasted in durations(began_at)] == [False, True, True, True]
    assert max(durations(began_at)) < 2 * 0.8


def durations(moments: list[float]) -> list[float]:
    """Return the seconds from each moment to the next."""
    return [after - before for before, after in pairwise(moments)]


@pytest.mark.parametrize(
    ("how", "key"),
    [
        (signal.SIGINT, "the checkpoint"),
        (signal.SIGTERM, "the checkpoint"),
        (signal.SIGTERM, "SLURM_JOB_ID"),
        (signal.SIGKILL, "the checkpoint"),
        (signal.SIGKILL, "SLURM_JOB_ID"),
    ],
)
def test_a_training_that_is_killed_goes_on_from_its_checkpoint_in_the_same_trial(
    how: signal.Signals, key: str, server: Server, tmp_path: Path
) -> None:
    fields = job()
    variables = {"CHECKPOINTS": str(tmp_path)} | ({"SLURM_JOB_ID": "17"} if key == "SLURM_JOB_ID" else {})
    with training(server.url, fields, 0.1, 0.2, 0.3, **variables) as killed:
        killed.read_until("batch size 16")
        for epoch in range(2):
            killed.read_until(f"epoch {epoch}")
            killed.begin_epoch()
        killed.read_until("epoch 2")
        killed.process.send_signal(how)
        if how == signal.SIGTERM:
            killed.begin_epoch()  # Lightning ends the batch first
        killed.process.wait(DEADLINE_S)
    client = BsoClient(server.url)
    before = only_trial(client, fields["job_id_prefix"])
    assert (before.status, before.current_epoch) == ("Dispatched", 2)

    with training(server.url, fields, 0.3, 1.0, **variables) as resumed:
        resumed.read_until("batch size 16")
        for epoch in (2, 3):
            resumed.read_until(f"epoch {epoch}")
            resumed.begin_epoch()
        resumed.read_until("converged: True")
        assert resumed.process.wait(DEADLINE_S) == 0
    after = only_trial(client, fields["job_id_prefix"])
    assert (after.converged, after.current_epoch) == (True, 4)
    assert after.energy >= before.energy + 20.0


def test_two_trainings_side_by_side_in_one_slurm_job_get_a_trial_and_a_verdict_each(server: Server) -> None:
    fields = job()
    with training(server.url, fields, 0.1, 1.0, SLURM_JOB_ID="17") as first:
        first.read_until("epoch 0")
        with training(server.url, fields, 0.1, 1.0, SLURM_JOB_ID="17") as second:
            second.read_until("epoch 0")
            for epoch in ("epoch 1", "converged: True"):
                for running in (first, second):
                    running.begin_epoch()
                    running.read_until(epoch)
    (job_id,) = (listed.job_id for listed in BsoClient(server.url).list_jobs(contains=fields["job_id_prefix"]).jobs)
    trials = BsoClient(server.url).list_trials(job_id).trials
    assert [(trial.run_id, trial.converged, trial.energy) for trial in trials] == [
        ("slurm-17", True, 20.0),
        ("slurm-17-2", True, 20.0),
    ]
