"""Builds the short fit of a probe: a copy of the trained module, and a Trainer that trains like the run's Trainer.

The copy must share nothing with the original that training changes. If that cannot be verified, there is no copy.
The probe itself is in `probing.py`.
"""

from __future__ import annotations

import copy
import types
import weakref
from collections import deque
from collections.abc import Iterator, Set
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

from lightning_bso.lightning.dataloading import train_loaders
from lightning_bso.lightning.families import classes, family_of, find

if TYPE_CHECKING:
    import lightning.pytorch as pl


def find_obstacle(trainer: pl.Trainer, module: pl.LightningModule, *, accumulates: bool) -> str | None:
    """Return why a short fit of a copy would differ from this fit or would not end, or None if nothing prevents it.

    Args:
        trainer: the trainer of the fit, which is over.
        module: the fitted module.
        accumulates: whether larger batches are split into parts.
    """
    batches = trainer.fit_loop.max_batches
    if not isinstance(batches, int) or batches == 0:
        return "the number of batches per epoch is unknown"
    if type(trainer.strategy) not in classes("strategies:SingleDeviceStrategy"):
        return "it requires one process that trains on one device"
    if not all(isinstance(loader, DataLoader) and not _is_stream(loader.dataset) for loader in train_loaders(trainer)):
        return "its training data are a stream, or not in a DataLoader, so they may be readable only once"
    if trainer.overfit_batches > 0:  # type: ignore[attr-defined]  # set by its debugging flags
        return "with overfit_batches the probe would include the validation"
    callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]  # set by a connector
    scheduler_classes = classes("callbacks:GradientAccumulationScheduler")
    schedulers = [callback for callback in callbacks if isinstance(callback, scheduler_classes)]
    if accumulates or schedulers or trainer.accumulate_grad_batches > 1:
        return "gradients are accumulated, so a batch size that does not fit in memory may fit in more parts"
    if any(map(_is_compiled, module.modules())):
        return "torch.compile would compile again for every batch size, which takes long"
    if any(tensor.layout is not torch.strided for tensor in _tensors(module)):
        return "the module holds sparse tensors, and torch cannot check that the probe leaves them unchanged"
    return None


def _tensors(module: torch.nn.Module) -> list[torch.Tensor]:
    return [*module.parameters(), *module.buffers()]


def _is_stream(dataset: object) -> bool:
    return isinstance(dataset, IterableDataset)


def _is_compiled(part: torch.nn.Module) -> bool:
    """Return whether `torch.compile` has wrapped a module or replaced its methods."""
    return hasattr(part, "_orig_mod") or any(
        getattr(part, name, None) is not None for name in ("_compiler_ctx", "_compiled_call_impl")
    )


def copy_modules(
    trainer: pl.Trainer, module: pl.LightningModule
) -> tuple[pl.LightningModule, pl.LightningDataModule | None]:
    """Copy the module and its datamodule in their current state. The copies share the data with the originals.

    Raises:
        ValueError: the copy could change the original.
        Exception: an attribute cannot be copied. The class of the attribute decides which exception it raises.
    """
    datamodule: pl.LightningDataModule | None = trainer.datamodule  # type: ignore[attr-defined]  # set by a connector
    original_ids = {id(value) for value in _walk(module, datamodule)}
    copied = copy.deepcopy((module, datamodule), {id(trainer): None} | _shared_data(module, datamodule))
    for value in _walk(*copied, stop_at=original_ids):
        if id(value) in original_ids and _may_hold_original(value):
            name = getattr(value, "__qualname__", type(value).__name__)
            raise ValueError(f"a copy would share {name} with the original, so training it could change the original")
    for part in copied:
        if part is not None:
            vars(part).update(dict.fromkeys(_SKIPPED_HOOKS, _do_nothing))
    vars(copied[0]).update(configure_callbacks=list)  # no callbacks: they belong to a whole training
    return copied


_SKIPPED_HOOKS = (
    *("prepare_data", "setup", "teardown", "on_fit_start", "on_train_start"),  # have run already, and may take long
    *("on_train_epoch_end", "on_train_end", "on_fit_end", "on_exception"),  # may save the trained model
)
"""Hooks that a copy does not run. The copy already has their effects, and must not overwrite what the run saved."""


def _do_nothing(*_: Any, **__: Any) -> None:
    """Replace a hook that must not run again."""


def _shared_data(module: pl.LightningModule, datamodule: pl.LightningDataModule | None) -> dict[int, Any]:
    """Return the values that a copy shares with the original, by id.

    These are datasets, loaders, and the arrays that only the datamodule holds.
    """
    datamodule_values = list(_walk(datamodule))
    datamodule_modules = [value for value in datamodule_values if isinstance(value, torch.nn.Module)]
    module_values = list(_walk(module, *datamodule_modules))
    module_ids = set(map(id, module_values))
    data = [value for value in (*module_values, *datamodule_values) if isinstance(value, Dataset | DataLoader)]
    arrays = [value for value in datamodule_values if isinstance(value, np.ndarray | torch.Tensor)]
    return {id(value): value for value in (*data, *(array for array in arrays if id(array) not in module_ids))}


def _may_hold_original(value: object) -> bool:
    """Return whether `copy.deepcopy` shares a value instead of copying it, although it may hold a copied object."""
    if isinstance(value, types.FunctionType):
        return bool(value.__closure__)
    if isinstance(value, types.BuiltinMethodType):  # such as the `append` of a list
        return not isinstance(value.__self__, types.ModuleType | type | None)
    return isinstance(value, weakref.ref)


def _walk(*holders: object, stop_at: Set[int] = frozenset()) -> Iterator[Any]:
    """Yield every value that these objects hold, each once.

    It does not look into data, nor into a value whose id is in `stop_at`.
    """
    seen: set[int] = set()
    pending = list(holders)
    while pending:
        value = pending.pop()
        if isinstance(value, str | bytes | int | float | None) or id(value) in seen:
            continue
        seen.add(id(value))
        yield value
        # deepcopy shares a tuple if it shares every element, so the elements of a shared tuple are needed too.
        if id(value) not in stop_at or isinstance(value, tuple):
            pending += _contents(value)


def _contents(value: Any) -> list[Any]:
    match value:
        case dict():
            return list(value.values())
        case list() | tuple() | set() | frozenset() | deque():
            return list(value)
        case partial():
            return [value.func, value.args, value.keywords]
        case types.MethodType():
            return [value.__self__]
        case type() | types.ModuleType() | types.FunctionType() | Dataset() | DataLoader():
            return []
        case _ if isinstance(value, classes("trainer.trainer:Trainer")):
            return []
    return list(getattr(value, "__dict__", {}).values())


@contextmanager
def unchanged_tensors(module: torch.nn.Module) -> Iterator[None]:
    """Ensure that a module's parameters, buffers and gradients are the same afterwards. Restores them if necessary.

    A copy may change the original through a reference that nothing can detect, such as a global name.

    Raises:
        RuntimeError: the tensors were changed, and have been restored.
    """
    tensors = _tensors(module)
    saved = [(tensor, tensor.detach().clone(), tensor.grad) for tensor in tensors]
    for tensor in tensors:
        tensor.grad = None
    changed = False
    try:
        yield
    finally:
        for tensor, _, gradient in saved:
            changed = changed or tensor.grad is not None
            tensor.grad = gradient
        with torch.no_grad():
            for tensor, values, _ in saved:
                if not _is_same(tensor, values):
                    tensor.copy_(values)
                    changed = True
    if changed:
        raise RuntimeError(
            "the copy changed the trained module, which has been restored; does a global name refer to the module?"
        )


def _is_same(tensor: torch.Tensor, values: torch.Tensor) -> bool:
    # torch.equal comes first, because it needs no memory. It is False for NaN, which does not even equal itself.
    return torch.equal(tensor, values) or torch.allclose(tensor, values, rtol=0.0, atol=0.0, equal_nan=True)


def trainer_like(trainer: pl.Trainer, callback: pl.Callback, min_epochs: int, folder: str) -> pl.Trainer:
    """Create a Trainer that takes training steps like this one, and does nothing else.

    Args:
        trainer: the trainer to imitate.
        callback: the only callback of the new trainer.
        min_epochs: lower limit of the new trainer's `max_epochs`.
        folder: folder for the new trainer's files.
    """
    device: torch.device = trainer.strategy.root_device
    family = family_of(trainer)
    environment = find(family, "plugins.environments:LightningEnvironment")()
    new: pl.Trainer = find(family, "trainer.trainer:Trainer")(
        accelerator=device.type,
        devices=[device.index] if device.type == "cuda" else 1,
        # Not Slurm's environment: at a preemption it would save the copy as the run, and it would resume from the run's
        # saved state.
        plugins=[copy.deepcopy(trainer.precision_plugin), environment],
        gradient_clip_val=trainer.gradient_clip_val,
        gradient_clip_algorithm=trainer.gradient_clip_algorithm,
        limit_train_batches=trainer.limit_train_batches,
        max_epochs=max(trainer.max_epochs or 0, min_epochs),
        limit_val_batches=0,
        logger=find(family, "loggers.logger:DummyLogger")() if trainer.loggers else False,
        callbacks=[callback],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    return new
