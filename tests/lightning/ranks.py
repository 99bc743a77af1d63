"""Trainings in two real processes that form one run, each with its exit code and with what it has seen."""

import json
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import repeat
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_bso import ZeusBSOCallback
from tests.client.jobs import ScriptedMonitor
from tests.databases import free_port
from tests.lightning.trainings import Module, trainer

DEADLINE_S = 60
RANKS = 2


class RankModule(Module):
    """Logs metrics of its own on each rank, without sync; None: logs none."""

    def __init__(self, metrics: Iterable[float | None] = repeat(0.5)) -> None:
        super().__init__()
        self.own: Iterator[float | None] = iter(metrics)

    def on_validation_epoch_end(self) -> None:
        if not self.trainer.sanity_checking and (metric := next(self.own)) is not None:
            self.log("val_acc", metric)


class Rank:
    """What became of one process."""

    def __init__(self, exit_code: int | None, folder: Path, number: int) -> None:
        self.exit_code = exit_code
        self.said = (folder / f"rank{number}.txt").read_text()
        """On standard error."""
        seen = folder / f"rank{number}.json"
        self.seen: dict[str, Any] = json.loads(seen.read_text()) if seen.exists() else {}


def run_ranks(folder: Path, training: Callable[[int], dict[str, Any]], *, nodes: int = 1) -> list[Rank]:
    """Run a training in two processes of one run, on one node or on two, and wait for both.

    Args:
        folder: for what they say and have seen.
        training: what each does, given its rank; it returns what it has seen.
        nodes: number of nodes that the processes are told to be on.
    """
    port = str(free_port())
    context = multiprocessing.get_context("fork")  # all is imported

    def begin(number: int) -> None:
        local_rank, node = (number, 0) if nodes == 1 else (0, number)
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        os.environ |= {"NODE_RANK": str(node), "LOCAL_RANK": str(local_rank)}
        with (folder / f"rank{number}.txt").open("w") as said:
            os.dup2(said.fileno(), 2)
        sys.stderr = os.fdopen(2, "w", buffering=1)
        torch.set_num_threads(1)
        seen = training(number)
        (folder / f"rank{number}.json").write_text(json.dumps(seen))

    processes = [context.Process(target=begin, args=(number,)) for number in range(RANKS)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(DEADLINE_S)
    for process in processes:
        process.kill()  # one that hangs has no exit code of its own
        process.join()
    return [Rank(process.exitcode, folder, number) for number, process in enumerate(processes)]


def fit_in_ranks(
    folder: Path,
    url: str,
    fields: dict[str, Any],
    module: Callable[[int], Module],
    *,
    nodes: int = 1,
    monitor: Callable[[int], Any] = lambda rank: ScriptedMonitor(),
    checkpoints: Path | None = None,
    **options: Any,
) -> list[Rank]:
    """Fit under ddp with a callback; `module` and `monitor` are made for each rank.

    In the folder `checkpoints`, if given, every epoch is saved, and the fit goes on from what is there.
    """

    def training(number: int) -> dict[str, Any]:
        callback = ZeusBSOCallback(url, fields, energy_monitor=monitor(number))
        callbacks: list[pl.Callback] = [callback]
        if checkpoints is not None:
            callbacks.append(ModelCheckpoint(checkpoints, save_last=True, save_on_train_epoch_end=False))
            options["enable_checkpointing"] = True
        running = trainer(*callbacks, devices=RANKS // nodes, num_nodes=nodes, strategy="ddp", **options)
        fitted = module(number)
        running.fit(fitted, ckpt_path="last" if checkpoints else None)
        assert callback.result is not None
        return {
            "batch_size": callback.batch_size,
            "sizes": sorted(fitted.sizes_seen),
            "epochs": running.current_epoch,
            "trial": callback.trial_number,
            "converged": callback.result.converged,
        }

    return run_ranks(folder, training, nodes=nodes)
