"""What a checkpoint tells of its run before Lightning restores it: `Callback.setup`, which asks, comes first.

What the callback puts into a checkpoint, and how it compares it once it is restored, is in `callback.py`.
"""

import inspect
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.rank_zero import rank_zero_warn


def saved_run(trainer: pl.Trainer, state_key: str) -> dict[str, Any] | None:
    """A callback's state in the checkpoint that this fit is to be resumed from; call it in `Callback.setup`.

    Args:
        trainer: the trainer of the fit.
        state_key: the callback's.

    Returns:
        The state; None where the fit begins anew, or its checkpoint cannot be looked into.

    Raises:
        MisconfigurationException: the training cannot be resumed from it, or was not measured so far.
    """
    resuming = _resuming(trainer)
    path = resuming.get("ckpt_path")
    if path is None:
        return None
    plain = resuming.get("weights_only") is not False  # who trusts the checkpoint says so to `fit`
    try:
        checkpoint = torch.load(str(path), map_location="cpu", mmap=True, weights_only=plain)
    except Exception as error:  # Lightning may be able to: it lies elsewhere, or holds objects of classes
        rank_zero_warn(
            f"ZeusBSOCallback cannot look into {path} beforehand ({type(error).__name__}: {error}). If this training "
            "is not resumed with its batch size, give the run_id that it had"
        )
        return None
    if "optimizer_states" not in checkpoint:
        raise MisconfigurationException(
            f"{path} holds weights alone, from which no training can be resumed. Begin a new run with them: "
            "load_from_checkpoint(…), and fit without ckpt_path"
        )
    state: dict[str, Any] | None = checkpoint.get("callbacks", {}).get(state_key)
    if not state:
        raise MisconfigurationException(
            f"{path} comes from a training without the batch-size optimizer: what that had cost is not known, nor "
            "whether its batch size was one of the job's. Train without ckpt_path, or go on without ZeusBSOCallback"
        )
    return state


def _resuming(trainer: pl.Trainer) -> dict[str, Any]:
    """What `fit` was told of the checkpoint: the trainer keeps it in its `_run` alone until it restores it."""
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_code.co_name == "_run" and frame.f_locals.get("self") is trainer:
            return frame.f_locals
        frame = frame.f_back
    return {}
