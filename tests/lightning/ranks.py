"""Trainings in two real processes that form one run. Each process returns its exit code and its results."""

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
from tests.lightning.trainings import AT_A_VALIDATION, Module, trainer

DEADLINE_S = 60
RANKS = 2


class RankModule(Module):
    """Logs its own metrics on each rank, without sync. None: it logs no metric."""

    def __init__(self, metrics: Iterable[float | None] = repeat(0.5)) -> None:
        super().__init__()
        self.own: Iterator[float | None] = iter(metrics)

    def on_validation_epoch_end(self) -> None:
        if not self.trainer.sanity_checking and (metric := next(self.own)) is not None:
            self.log("val_acc", metric)


class Rank:
    """A process of a run, after its end."""

    def __init__(self, exit_code: int | None, folder: Path, number: int) -> None:
        self.exit_code = exit_code
        self.stderr = (folder / f"rank{number}.txt").read_text()
        path = folder / f"rank{number}.json"
        self.result: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}


def run_ranks(folder: Path, training: Callable[[int], dict[str, Any]], *, nodes: int = 1) -> list[Rank]:
    """Run a training in two processes of one run, and wait for both.

    Args:
        folder: folder for the processes' output and results.
        training: what each process runs. It gets its rank, and returns its results.
        nodes: number of nodes that the environment variables describe.
    """
    port = str(free_port())
    context = multiprocessing.get_context("fork")  # all modules are imported already

    def begin(number: int) -> None:
        local_rank, node = (number, 0) if nodes == 1 else (0, number)
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        os.environ |= {"NODE_RANK": str(node), "LOCAL_RANK": str(local_rank)}
        with (folder / f"rank{number}.txt").open("w") as output:
            os.dup2(output.fileno(), 2)
        sys.stderr = os.fdopen(2, "w", buffering=1)
        torch.set_num_threads(1)
        result = training(number)
        (folder / f"rank{number}.json").write_text(json.dumps(result))

    processes = [context.Process(target=begin, args=(number,)) for number in range(RANKS)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(DEADLINE_S)
    for process in processes:
        process.kill()  # a hanging process has no exit code before this
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
    """Fit under ddp with a callback. `module` and `monitor` create one object for each rank.

    If `checkpoints` is given, every epoch is saved in that folder, and the fit resumes from its last checkpoint.
    """

    def training(number: int) -> dict[str, Any]:
        callback = ZeusBSOCallback(url, fields, energy_monitor=monitor(number))
        callbacks: list[pl.Callback] = [callback]
        if checkpoints is not None:
            callbacks.append(ModelCheckpoint(checkpoints, save_last=True, **AT_A_VALIDATION))
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
