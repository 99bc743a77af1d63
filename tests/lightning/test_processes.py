"""Real training processes and real servers, of which one is killed without a chance to say a word."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest

from lightning_bso import BsoClient, ZeusBSOCallback
from lightning_bso import client as client_module
from tests.client.jobs import ScriptedMonitor, job, only_trial
from tests.lightning.trainings import Module, fit, reported_epochs, trainer
from tests.servers import ROOT, WaitressServer, environment

DEADLINE_S = 30
LEASE_S = 1


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[WaitressServer]:
    """A server of this test's own, that soon takes a silent run for lost."""
    with WaitressServer(f"sqlite:///{tmp_path / 'bso.db'}", tmp_path, ZEUS_BSO_LEASE_S=str(LEASE_S)) as running:
        yield running


class Training:
    """A training process, epoch by epoch."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process

    def read(self) -> str:
        """The next line that it says."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def read_until(self, line: str) -> None:
        """Read on until it says this; it must not end before."""
        while (said := self.read()) != line:
            assert said, f"it ended with {self.process.wait()} before it said {line!r}"

    def begin_epoch(self) -> None:
        """Let it train an epoch, and validate and report."""
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()


@contextmanager
def training(url: str, fields: dict[str, Any], *metrics: float, **variables: str) -> Iterator[Training]:
    """Start a training process; it is killed at the end if need be."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.lightning.training_process", url, json.dumps(fields), *map(str, metrics)],
        cwd=ROOT,
        env=environment(OMP_NUM_THREADS="1", **variables),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        yield Training(process)
    finally:
        process.kill()
        process.communicate()


def test_the_batch_size_of_a_killed_training_is_given_out_again_and_the_job_goes_on(mortal: WaitressServer) -> None:
    fields = job(batch_sizes=[8, 16], num_pruning_rounds=1)
    with training(mortal.url, fields, 0.5, 0.5) as killed:
        killed.read_until("epoch 0")
        killed.begin_epoch()
        killed.read_until("epoch 1")
        killed.process.send_signal(signal.SIGKILL)
        assert killed.process.wait() == -signal.SIGKILL
    client = BsoClient(mortal.url)
    lost = only_trial(client, fields["job_id_prefix"])
    assert (lost.batch_size, lost.type, lost.status) == (16, "Pruning", "Dispatched")
    (job_id,) = (listed.job_id for listed in client.list_jobs().jobs)

    deadline = time.monotonic() + DEADLINE_S
    calls = mortal.calls
    while (stand_in := calls.trial(job_id))["type"] != "Pruning":  # until the lease is over
        assert time.monotonic() < deadline
        calls.end(stand_in)
    assert stand_in["batch_size"] == 16
    calls.end(stand_in)
    assert "not heard of" in str(client.list_trials(job_id).trials[0].outcome)

    given = []
    for _ in range(3):
        callback = ZeusBSOCallback(mortal.url, fields, energy_monitor=ScriptedMonitor())
        fit(callback, Module([1.0]))
        given.append((client.list_trials(job_id).trials[-1].type, callback.batch_size))
    assert given[:2] == [("Pruning", 16), ("Pruning", 8)]
    assert given[2][0] == "MAB"
    assert client.describe(job_id).stage == "MAB"


def test_a_training_whose_server_is_killed_and_restarted_ends_as_if_nothing_had_been(mortal: WaitressServer) -> None:
    fields = job()
    with training(mortal.url, fields, 0.1, 0.2, 0.3, 1.0) as running:
        running.read_until("batch size 16")
        running.read_until("epoch 0")
        running.begin_epoch()
        running.read_until("epoch 1")
        mortal.kill()
        running.begin_epoch()
        running.read_until("epoch 2")
        mortal.start()
        running.begin_epoch()
        running.read_until("epoch 3")
        running.begin_epoch()
        running.read_until("converged: True")
        assert running.process.wait(DEADLINE_S) == 0
    assert reported_epochs(mortal, fields["job_id_prefix"]) == [1, 2, 3, 4]
    stored = only_trial(BsoClient(mortal.url), fields["job_id_prefix"])
    assert (stored.converged, stored.energy, stored.time) == (True, 40.0, 4.0)


def test_a_server_that_hangs_for_some_epochs_holds_each_validation_up_for_the_timeout_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "READ_TIMEOUT_S", 0.3)
    hanging = WaitressServer(f"sqlite:///{tmp_path / 'bso.db'}", tmp_path)  # none whose lease wants a word so soon
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
    assert [lasted > 0.3 for lasted in durations(began_at)] == [False, True, True, True]
    assert max(durations(began_at)) < 2 * 0.3


def durations(moments: list[float]) -> list[float]:
    """Seconds from each moment to the next."""
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
    how: signal.Signals, key: str, server: WaitressServer, tmp_path: Path
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
