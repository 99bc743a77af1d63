"""Reads the callback's state from a checkpoint before Lightning restores the checkpoint.

`Callback.setup` asks for the batch size, and Lightning calls it before it restores. Which state the callback saves,
and how it checks the restored state, is in `lightning_bso.optimizer`.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from lightning_bso.errors import BSOError
from lightning_bso.lightning.families import misconfiguration, rank_zero_warn

if TYPE_CHECKING:
    import lightning.pytorch as pl


def saved_run(trainer: pl.Trainer, state_key: str) -> dict[str, Any] | None:
    """Return a callback's state in the checkpoint that this fit resumes from. Call this in `Callback.setup`.

    Args:
        trainer: the trainer of the fit.
        state_key: the callback's key in the checkpoint.

    Returns:
        The state, or None if the fit does not resume or its checkpoint cannot be read here.

    Raises:
        MisconfigurationException: the training cannot be resumed from the checkpoint, or was not measured before.
    """
    arguments = _run_arguments(trainer)
    path = arguments.get("ckpt_path")
    if path is None:
        return None
    # False: the caller of `fit` trusts the checkpoint. Lightning before 2.6 has no such argument, and trusts them all.
    weights_only = arguments.get("weights_only", False) is not False
    try:
        checkpoint = torch.load(str(path), map_location="cpu", mmap=True, weights_only=weights_only)
    except Exception as error:  # Lightning may still read it: from other storage, or with objects of other classes
        rank_zero_warn(
            f"ZeusBSOCallback cannot read {path} before the fit ({type(error).__name__}: {error}). If this training "
            "does not resume with its batch size, give the run_id of the interrupted run"
        )
        return None
    if "optimizer_states" not in checkpoint:
        raise misconfiguration(
            f"{path} holds only weights, so a training cannot be resumed from it. Start a new run with the weights: "
            "load_from_checkpoint(…), and fit without ckpt_path"
        )
    state: dict[str, Any] | None = checkpoint.get("callbacks", {}).get(state_key)
    if not state:
        raise misconfiguration(
            f"{path} comes from a training without the batch-size optimizer, so its cost is unknown and its batch size "
            "may not be in the job. Start a new training, or resume without ZeusBSOCallback"
        )
    return state


@contextmanager
def left_over_named(trainer: pl.Trainer) -> Iterator[None]:
    """Add the cure to an error about a checkpoint that nobody asked for. Use this in `Callback.setup`.

    Lightning saves `hpc_ckpt_N.ckpt` when Slurm preempts a job. It also resumes from the one with the highest number by
    itself, even if another job left it behind.
    """
    try:
        yield
    except Exception as error:
        path = str(_run_arguments(trainer).get("ckpt_path"))
        about_checkpoint = (BSOError, type(misconfiguration("")))
        if type(error) not in about_checkpoint or not re.search(r"hpc_ckpt_\d+\.ckpt$", path):
            raise
        raise type(error)(
            f"{error}. Lightning resumes from {path} by itself, because an earlier job left it in the Trainer's "
            "default_root_dir. If this is a new training, remove the file, or set another default_root_dir"
        ) from error


def _run_arguments(trainer: pl.Trainer) -> dict[str, Any]:
    """Return the local variables of `Trainer._run`, or nothing outside of that method.

    Before the trainer restores a checkpoint, no attribute holds the checkpoint's path.
    """
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_code.co_name == "_run" and frame.f_locals.get("self") is trainer:
            return frame.f_locals
        frame = frame.f_back
    return {}
