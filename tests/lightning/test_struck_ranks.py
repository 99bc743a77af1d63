"""Runs of several processes resume their trial after some processes were killed or interrupted."""

import multiprocessing
import os
import signal
from collections.abc import Callable
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.multiprocessing import ProcessRaisedException

from lightning_bso import BsoClient, ZeusBSOCallback
from tests.client.jobs import ScriptedMonitor, job, only_trial
from tests.lightning.ranks import DEADLINE_S, RankModule, fit_in_ranks
from tests.lightning.trainings import Module, fit, trainer
from tests.servers import Server

Strike = Callable[[int], None]


class Struck(RankModule):
    """Calls `strike` on every rank at the start of the third epoch."""

    def __init__(self, strike: Strike) -> None:
        super().__init__()
        self._strike = strike

    def on_train_epoch_start(self) -> None:
        if self.trainer.current_epoch == 2:
            self._strike(self.trainer.global_rank)


def kill_the_second(rank: int) -> None:
    if rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)


def preempt_all(rank: int) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize(
    ("strike", "exit_codes", "outcome"),
    [(kill_the_second, [1, -signal.SIGKILL], "RuntimeError"), (preempt_all, [0, 0], "None")],
)
def test_ranks_that_are_killed_go_on_from_their_checkpoint_in_the_same_trial(
    strike: Strike, exit_codes: list[int], outcome: str, server: Server, client: BsoClient, tmp_path: Path
) -> None:
    fields, saved = job(), tmp_path / "saved"
    ranks = fit_in_ranks(tmp_path, server.url, fields, lambda rank: Struck(strike), checkpoints=saved)
    assert [rank.exit_code for rank in ranks] == exit_codes, ranks[0].stderr
    before = only_trial(client, fields["job_id_prefix"])
    assert str(before.outcome).startswith(outcome)
    assert before.current_epoch == 2

    ranks = fit_in_ranks(tmp_path, server.url, fields, lambda rank: RankModule([0.5, 1.0]), checkpoints=saved)
    assert [rank.exit_code for rank in ranks] == [0, 0], ranks[0].stderr
    after = only_trial(client, fields["job_id_prefix"])
    assert (after.converged, after.current_epoch, after.energy) == (True, 4, before.energy + 20.0)


def interrupt_the_group(rank: int) -> None:
    if rank == 0:
        os.killpg(0, signal.SIGINT)


def preempt_the_group(rank: int) -> None:
    os.kill(os.getpid(), signal.SIGTERM)  # on all ranks at the same point, because Lightning's handlers synchronize
    if rank == 0:
        os.kill(os.getppid(), signal.SIGTERM)


def preempt_the_main_process(rank: int) -> None:
    if rank == 0:
        os.kill(os.getppid(), signal.SIGTERM)
        signal.pause()  # torch interrupts the other processes when the main process is gone


@pytest.mark.parametrize("strike", [interrupt_the_group, preempt_the_group, preempt_the_main_process])
def test_forked_processes_that_are_interrupted_leave_their_trial_open(
    strike: Strike, server: Server, client: BsoClient, tmp_path: Path
) -> None:
    fields = job()
    saving = ModelCheckpoint(tmp_path, save_last=True, save_on_train_epoch_end=False)

    def train(_held: Any) -> None:
        os.setsid()  # a shell or a scheduler starts it in its own session too
        signal.signal(signal.SIGINT, signal.default_int_handler)
        callback = ZeusBSOCallback(server.url, fields, energy_monitor=ScriptedMonitor())
        trainer(callback, saving, devices=2, strategy="ddp_fork", enable_checkpointing=True).fit(Struck(strike))

    context = multiprocessing.get_context("fork")  # all modules are imported already
    ended, held = context.Pipe(duplex=False)
    main = context.Process(target=train, args=(held,))
    main.start()
    held.close()
    assert wait([ended], DEADLINE_S), "a process is still running"  # every process holds the other end of the pipe
    main.join(DEADLINE_S)
    before = only_trial(client, fields["job_id_prefix"])
    assert (before.status, before.outcome, before.current_epoch) == ("Dispatched", None, 2)

    resumed = ZeusBSOCallback(server.url, fields, energy_monitor=ScriptedMonitor())
    trainer(resumed).fit(Module([1.0]), ckpt_path=str(tmp_path / "last.ckpt"))
    assert only_trial(client, fields["job_id_prefix"]).converged


class Large(Module):
    """Does not fit in memory."""

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        raise torch.OutOfMemoryError("Tried to allocate 20 GiB")


def test_a_batch_size_that_does_not_fit_in_the_memory_of_forked_processes_is_on_record(
    server: Server, client: BsoClient
) -> None:
    fields = job()
    with pytest.raises(ProcessRaisedException, match="Tried to allocate"):
        fit(ZeusBSOCallback(server.url, fields), Large(), devices=2, strategy="ddp_fork")
    trial = only_trial(client, fields["job_id_prefix"])
    assert (trial.converged, trial.outcome_code) == (False, "out_of_memory")
