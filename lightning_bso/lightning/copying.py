"""What a short fit like a training's is made of: a copy of what was trained, and a Trainer; or why there is none.

The copy must share nothing with the original that training changes. Where that cannot be told, there is no copy.
"""

import copy
import types
import weakref
from collections import deque
from collections.abc import Iterator, Set
from contextlib import contextmanager
from functools import partial
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from lightning.pytorch.loggers.logger import DummyLogger
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch.utils.data import DataLoader, Dataset, IterableDataset

from lightning_bso.lightning.dataloading import train_loaders


def obstacle(trainer: pl.Trainer, module: pl.LightningModule, *, accumulates: bool) -> str | None:
    """Why a short fit of a copy would not be like this fit, or would not end; None if it would.

    Args:
        trainer: the trainer of the fit, which is over.
        module: the module that was fitted.
        accumulates: whether a larger batch is taken in parts.
    """
    batches = trainer.fit_loop.max_batches
    if not isinstance(batches, int) or batches == 0:
        return "the number of batches in an epoch is not known"
    if type(trainer.strategy) is not SingleDeviceStrategy:
        return "it is made where one process trains on one device"
    if not all(isinstance(one, DataLoader) and not _is_stream(one.dataset) for one in train_loaders(trainer)):
        return "its data come as a stream, or by no DataLoader, so they may come only once"
    if trainer.overfit_batches > 0:  # type: ignore[attr-defined]  # set by its debugging flags
        return "with overfit_batches the validation would be a part of it"
    schedulers = [one for one in trainer.callbacks if isinstance(one, GradientAccumulationScheduler)]  # type: ignore[attr-defined]
    if accumulates or schedulers or trainer.accumulate_grad_batches > 1:
        return "gradients are accumulated, and what does not fit in memory may fit in more parts"
    if any(map(_is_compiled, module.modules())):
        return "torch.compile would compile anew for every batch size, which takes long"
    if any(tensor.layout is not torch.strided for tensor in _tensors(module)):
        return "the module holds sparse tensors, and torch cannot tell whether these have stayed the same"
    return None


def _tensors(module: torch.nn.Module) -> list[torch.Tensor]:
    return [*module.parameters(), *module.buffers()]


def _is_stream(dataset: object) -> bool:
    return isinstance(dataset, IterableDataset)


def _is_compiled(part: torch.nn.Module) -> bool:
    """Whether `torch.compile` has wrapped it, or is in the place of its methods."""
    return hasattr(part, "_orig_mod") or any(
        getattr(part, name, None) is not None for name in ("_compiler_ctx", "_compiled_call_impl")
    )


def copies(trainer: pl.Trainer, module: pl.LightningModule) -> tuple[pl.LightningModule, pl.LightningDataModule | None]:
    """The module and its datamodule once more, set up as they are; the data themselves are shared.

    Raises:
        ValueError: the copy would reach the original.
        Exception: what they hold says that it cannot be copied, each kind in its own way.
    """
    datamodule: pl.LightningDataModule | None = trainer.datamodule  # type: ignore[attr-defined]  # set by a connector
    originals = {id(one) for one in _reach(module, datamodule)}
    made = copy.deepcopy((module, datamodule), {id(trainer): None} | _data(module, datamodule))
    for one in _reach(*made, down_to=originals):
        if id(one) in originals and _leads_back(one):
            name = getattr(one, "__qualname__", type(one).__name__)
            raise ValueError(f"a copy would share {name} with the original, and may change it by that")
    for part in made:
        if part is not None:
            vars(part).update(dict.fromkeys(_OF_WHOLE_TRAININGS, _do_nothing))
    vars(made[0]).update(configure_callbacks=list)  # none: they are for a whole training
    return made


_OF_WHOLE_TRAININGS = (
    *("prepare_data", "setup", "teardown", "on_fit_start", "on_train_start"),  # has been done, and may take long
    *("on_train_epoch_end", "on_train_end", "on_fit_end", "on_exception"),  # may write down what was trained
)
"""Hooks that do not run again: the copy has what they have done, and what they write is the training's."""


def _do_nothing(*_: Any, **__: Any) -> None:
    """Stands for a hook that is not to run again."""


def _data(module: pl.LightningModule, datamodule: pl.LightningDataModule | None) -> dict[int, Any]:
    """What is shared with a copy, by id: datasets, loaders, and the arrays that the datamodule alone holds."""
    of_datamodule = list(_reach(datamodule))
    of_modules = list(_reach(module, *(one for one in of_datamodule if isinstance(one, torch.nn.Module))))
    not_to_share = set(map(id, of_modules))
    data = [one for one in (*of_modules, *of_datamodule) if isinstance(one, Dataset | DataLoader)]
    arrays = [one for one in of_datamodule if isinstance(one, np.ndarray | torch.Tensor)]
    return {id(one): one for one in (*data, *(one for one in arrays if id(one) not in not_to_share))}


def _leads_back(value: object) -> bool:
    """Whether `copy.deepcopy` takes it as it is, though it may hold what has been copied."""
    if isinstance(value, types.FunctionType):
        return bool(value.__closure__)
    if isinstance(value, types.BuiltinMethodType):  # such as the `append` of a list
        return not isinstance(value.__self__, types.ModuleType | type | None)
    return isinstance(value, weakref.ref)


def _reach(*holders: object, down_to: Set[int] = frozenset()) -> Iterator[Any]:
    """Everything that these hold, each once, down to their data, and to what has one of these ids."""
    seen: set[int] = set()
    ahead = list(holders)
    while ahead:
        value = ahead.pop()
        if isinstance(value, str | bytes | int | float | None) or id(value) in seen:
            continue
        seen.add(id(value))
        yield value
        # A tuple is not copied where all in it is taken as it is.
        if id(value) not in down_to or isinstance(value, tuple):
            ahead += _inside(value)


def _inside(value: Any) -> list[Any]:
    match value:
        case dict():
            return list(value.values())
        case list() | tuple() | set() | frozenset() | deque():
            return list(value)
        case partial():
            return [value.func, value.args, value.keywords]
        case types.MethodType():
            return [value.__self__]
        case type() | types.ModuleType() | types.FunctionType() | Dataset() | DataLoader() | pl.Trainer():
            return []
    return list(getattr(value, "__dict__", {}).values())


@contextmanager
def left_alone(module: torch.nn.Module) -> Iterator[None]:
    """See to it that a module's numbers are the same afterwards, by putting them back if need be.

    A copy that reaches the original in a way that nobody can see, such as a global name, changes it all the same.

    Raises:
        RuntimeError: they have been changed, and put back.
    """
    tensors = _tensors(module)
    kept = [(tensor, tensor.detach().clone(), tensor.grad) for tensor in tensors]
    for tensor in tensors:
        tensor.grad = None
    changed = False
    try:
        yield
    finally:
        for tensor, _, gradient in kept:
            changed = changed or tensor.grad is not None
            tensor.grad = gradient
        with torch.no_grad():
            for tensor, values, _ in kept:
                if not _is_same(tensor, values):
                    tensor.copy_(values)
                    changed = True
    if changed:
        raise RuntimeError("its copy trained the module itself, which has been put back; is there a global name of it?")


def _is_same(tensor: torch.Tensor, values: torch.Tensor) -> bool:
    # NaN equals nothing, not even itself; the first question takes no memory.
    return torch.equal(tensor, values) or torch.allclose(tensor, values, rtol=0.0, atol=0.0, equal_nan=True)


def trainer_like(trainer: pl.Trainer, callback: pl.Callback, least_epochs: int, folder: str) -> pl.Trainer:
    """A Trainer that steps as this one does, and does nothing else.

    Args:
        trainer: the trainer that it is like.
        callback: its only callback.
        least_epochs: that it may take, if the callback does not stop it.
        folder: for what is written.
    """
    device: torch.device = trainer.strategy.root_device
    return pl.Trainer(
        accelerator=device.type,
        devices=[device.index] if device.type == "cuda" else 1,
        # Not Slurm's environment: preempted, it would save the copy as the run, and begin with what the run has saved.
        plugins=[copy.deepcopy(trainer.precision_plugin), LightningEnvironment()],
        gradient_clip_val=trainer.gradient_clip_val,
        gradient_clip_algorithm=trainer.gradient_clip_algorithm,
        limit_train_batches=trainer.limit_train_batches,
        max_epochs=max(trainer.max_epochs or 0, least_epochs),
        limit_val_batches=0,
        logger=DummyLogger() if trainer.loggers else False,
        callbacks=[callback],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
