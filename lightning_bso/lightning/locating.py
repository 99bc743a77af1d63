"""Finds where a training holds its batch size: on the module, the datamodule, or in their settings.

Nothing here changes a batch size. `dataloading.py` sets it in the places that are found.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from lightning_bso.lightning.families import classes

if TYPE_CHECKING:
    import lightning.pytorch as pl

NAME = "batch_size"
"""The usual name of the attribute that holds a batch size."""
MAX_DEPTH = 5
"""The largest number of names in a suggested path."""
MAX_VISITED = 10_000
"""Limit of the objects that are searched for suggestions."""
_SETTINGS = re.compile(r"_*(\w+_)?(kw|kwargs|args|config|cfg)")
_OTHER_STAGE = re.compile(
    r"(^|_)(val|valid|validation|eval|evaluation|dev|test|pred|predict|prediction|inference)_", re.IGNORECASE
)
_LIKE_A_BATCH_SIZE = re.compile(r"_*(\w+_)?(batch_?size|bs|bsz)(_\w+)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Place:
    """An attribute of an object, or a key of a mapping."""

    holder: Any
    name: str
    description: str
    """The place in words, such as "kwargs.batch_size of torch_geometric.data.LightningDataset"."""

    @property
    def value(self) -> Any:
        """The present value."""
        return _get(self.holder, self.name)

    @property
    def is_settable(self) -> bool:
        """Whether the value can be set. A property or a frozen configuration may not allow it."""
        try:
            self.set(self.value)
        except Exception:  # each configuration library raises its own class
            return False
        return True

    def set(self, value: Any) -> None:
        """Set the value."""
        if isinstance(self.holder, MutableMapping):
            self.holder[self.name] = value
        else:
            setattr(self.holder, self.name, value)


def class_name(value: object) -> str:
    """Return the name of an object's class, with its module."""
    return f"{type(value).__module__}.{type(value).__qualname__}"


def find(trainer: pl.Trainer, module: pl.LightningModule, path: str) -> list[Place]:
    """Return the places at a path of names, such as "data.batch_size"."""
    return [place for part in _parts(trainer, module) for place in _at(part, path)]


def find_in_settings(trainer: pl.Trainer, module: pl.LightningModule) -> list[Place]:
    """Return the batch sizes that are one level down, in settings such as `kwargs`, `loader_kwargs` or `cfg`.

    A part that has a batch size of its own uses that one. So its settings count only while their batch size is the
    same. Settings with different batch sizes do not count, because only one of them can be that of the training.
    Settings for validation, test and prediction are left out.
    """
    found = []
    for part in _parts(trainer, module):
        names = dict.fromkeys(name for holder in _holders(part) for name in _names(holder))
        settings = [name for name in names if _SETTINGS.fullmatch(name) and not _OTHER_STAGE.search(name)]
        at = {name: [p for p in _at(part, f"{name}.{NAME}") if is_batch_size(p.value)] for name in settings}
        own_sizes = {place.value for place in _at(part, NAME) if is_batch_size(place.value)}
        sizes = own_sizes or {places[0].value for places in at.values() if places}
        if own_sizes or len(sizes) == 1:
            found += [place for places in at.values() if places and places[0].value in sizes for place in places]
    return found


def suggest(trainer: pl.Trainer, module: pl.LightningModule, without: int | None = None) -> list[str]:
    """Return paths to what looks like a batch size for training, can be set, and does not have the value `without`."""
    found = {
        path
        for part in _parts(trainer, module)
        for holder in _holders(part)
        for path in _walk(holder, (), set())
        if any(place.is_settable and place.value != without for place in _at(part, path))
    }
    return sorted(found, key=lambda path: (path.count("."), path))


def _parts(trainer: pl.Trainer, module: pl.LightningModule) -> list[Any]:
    datamodule = trainer.datamodule  # type: ignore[attr-defined]  # set by a connector
    return [module] if datamodule is None else [module, datamodule]


def _holders(part: Any) -> list[Any]:
    # Lightning logs `_hparams_initial` as the hyperparameters, after `setup`.
    return [part, part.hparams, getattr(part, "_hparams_initial", None)]


def _at(part: Any, path: str) -> Iterator[Place]:
    *names, last = path.split(".")
    for holder in _holders(part):
        for name in names:
            holder = _get(holder, name)
        if _get(holder, last, _MISSING) is not _MISSING:
            yield Place(holder, last, f"{path} of {class_name(part)}")


def _walk(holder: Any, path: tuple[str, ...], seen: set[int]) -> Iterator[str]:
    """Yield the paths below a holder whose last name looks like that of a batch size."""
    seen.add(id(holder))
    for name in _names(holder):
        if _OTHER_STAGE.search(name):
            continue
        value = _get(holder, name)
        if is_batch_size(value) and _LIKE_A_BATCH_SIZE.fullmatch(name):
            yield ".".join((*path, name))
        elif name.startswith("_") or len(path) + 1 == MAX_DEPTH or len(seen) == MAX_VISITED:
            continue
        elif id(value) not in seen and _may_hold_settings(value):
            yield from _walk(value, (*path, name), seen)


def _names(holder: Any) -> list[str]:
    """Return the names of an object's attributes, or the keys of a mapping."""
    names = holder if isinstance(holder, Mapping) else getattr(holder, "__dict__", ())
    return [name for name in names if isinstance(name, str)]


def _may_hold_settings(value: object) -> bool:
    trainers = classes("trainer.trainer:Trainer")
    heavy = (torch.nn.Module, torch.Tensor, Dataset, DataLoader, type, ModuleType, FunctionType, *trainers)
    return not isinstance(value, heavy) and (isinstance(value, Mapping) or hasattr(value, "__dict__"))


def is_batch_size(value: object) -> bool:
    """Return whether a value can be a batch size."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and int(value) > 0


_MISSING = object()


def _get(holder: Any, name: str, default: Any = None) -> Any:
    if isinstance(holder, Mapping):
        return holder.get(name, default)
    try:
        return getattr(holder, name, default)
    except Exception:  # a property may raise anything before the training starts
        return default
