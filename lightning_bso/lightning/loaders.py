"""Loaders of training data: their batch size, and a loader like another with a different batch size.

Nothing here knows a Trainer. `dataloading.py` decides which loaders are replaced and checked.
"""

from __future__ import annotations

import copy
import random
import re
from collections.abc import Callable, Mapping, Set
from contextlib import suppress
from dataclasses import fields, is_dataclass
from functools import partial
from inspect import Parameter, signature
from itertools import islice
from types import MethodType
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import PackedSequence
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
)

from lightning_bso.lightning.locating import class_name

PEEKED_BATCHES = 32
"""Number of batches that show whether a sampler follows its batch size."""


def batch_size_of(loader: Any) -> int | None:
    """Return the batch size of a loader, or None if it shows none."""
    loader = _innermost(loader)
    # The batch sampler comes first: it makes the batches, and its batch size can change. The loader's cannot. A loader
    # without a batch size of its own may have a sampler that yields the indices of whole batches.
    holders = (getattr(loader, "batch_sampler", None), loader, getattr(loader, "sampler", None))
    return next((size for holder in holders if (size := _own_batch_size(holder)) is not None), None)


def with_batch_size(loader: DataLoader[Any], batch_size: int, *, drop_last: bool = False) -> DataLoader[Any]:
    """Return a loader of the same class with the same arguments, but another batch size.

    Args:
        loader: the loader, which does not change.
        batch_size: the new batch size.
        drop_last: whether to drop an incomplete last batch even if this loader keeps it.

    Raises:
        ValueError: neither the loader nor its sampler has a batch size that can be set, or the loader wraps another.
    """
    if _innermost(loader) is not loader:
        raise ValueError("it takes its batches from another loader")
    changes: dict[str, Any] = {"batch_size": batch_size} | ({"drop_last": True} if drop_last else {})
    recreated = _recreate_loader(loader, changes)
    return _copy_loader(loader, changes) if recreated is None else recreated


def leaves_one_sample(loader: Any, batch_size: int, ranks: int = 1) -> bool:
    """Return whether the last batch of an epoch has a single sample, and the loader keeps it.

    Args:
        loader: the loader.
        batch_size: the batch size of one rank.
        ranks: the ranks that will share the loader's samples.
    """
    loader = _innermost(loader)
    sampler = getattr(loader, "sampler", None)
    batches_samples = _own_batch_size(loader) is None and _own_batch_size(sampler) is not None
    batch_sampler = sampler if batches_samples else getattr(loader, "batch_sampler", None)
    if getattr(batch_sampler, "drop_last", True):
        return False
    ranks = 1 if isinstance(sampler, DistributedSampler) else ranks  # it has the samples of one rank
    samples = -(-(length(getattr(batch_sampler, "sampler", None)) or 0) // ranks)  # 0: a stream has no length
    return samples > batch_size > 1 and samples % batch_size == 1


def possible_samples(batch: Any) -> list[int]:
    """Return the numbers of samples that a batch may have, the most likely first. Empty if it shows none.

    The number is the `num_graphs` or `batch_size` of the batch. Without these, it may be the length of any list in it
    (a batch for object detection is often a list of images and a list of their boxes), the leading dimension of any
    array, or the length of the batch, if nothing has collated its samples.
    """
    lengths, dimensions = _lengths_and_dimensions(batch)
    own = [len(batch)] if isinstance(batch, list | tuple) else []
    return list(dict.fromkeys((*lengths, *dimensions, *own)))


def _lengths_and_dimensions(batch: Any) -> tuple[list[int], list[int]]:
    """Return the lengths of the lists in a batch, and the leading dimensions of the arrays in it."""
    if isinstance(batch, torch.Tensor | np.ndarray):
        return [], [int(batch.shape[0])] if batch.ndim else []
    if isinstance(batch, PackedSequence):
        return [], [int(batch.batch_sizes[0])]
    for name in ("num_graphs", "batch_size"):
        value = getattr(batch, name, None)
        if isinstance(value, torch.Size):
            return [], [int(value[0])] if value else []
        if isinstance(value, int):
            return [], [value]
    if isinstance(batch, Mapping):
        parts = list(batch.values())
    elif isinstance(batch, list | tuple):
        parts = list(batch)
    elif is_dataclass(batch) and not isinstance(batch, type):
        parts = [getattr(batch, field.name) for field in fields(batch)]
    else:
        return [], []
    lengths, dimensions = [len(part) for part in parts if isinstance(part, list | tuple)], []
    for part in parts:
        lengths_below, dimensions_below = _lengths_and_dimensions(part)
        lengths += lengths_below
        dimensions += dimensions_below
    return lengths, dimensions


def length(values: Any) -> int | None:
    """Return how many values there are, or None if that is unknown, as of a stream."""
    try:
        return len(values)
    except (TypeError, NotImplementedError):
        return None


def _innermost(loader: Any) -> Any:
    """Return the loader that makes the batches. A loader of a class of its own may wrap another as its dataset."""
    while isinstance(dataset := getattr(loader, "dataset", None), DataLoader):
        loader = dataset
    return loader


def _own_batch_size(holder: Any) -> int | None:
    size = getattr(holder, "batch_size", None)
    return size if isinstance(size, int) else None


def _recreate_loader(loader: DataLoader[Any], changes: dict[str, Any]) -> DataLoader[Any] | None:
    """Return a new loader of this class, or None if the loader does not show all arguments that it was created with."""
    if loader.batch_size is None or type(loader.batch_sampler) is not BatchSampler:
        return None
    arguments = _arguments(loader, changes, skipped={"batch_sampler", "sampler", "shuffle"})
    if arguments is None:
        return None
    own, accepted = signature(type(loader)).parameters, _parameters(type(loader))
    if "shuffle" in own:
        arguments["shuffle"] = "sampler" not in accepted and isinstance(loader.sampler, RandomSampler)
    if "sampler" in accepted and not isinstance(loader.dataset, IterableDataset):
        arguments["sampler"] = loader.sampler
    try:
        new, given = _create(type(loader), arguments)
    except Exception:  # an attribute is not the argument of the same name, or the class refuses the batch size
        return None
    return new if _is_alike(loader, new, given - changes.keys()) else None


def _is_alike(loader: DataLoader[Any], new: DataLoader[Any], arguments: Set[str]) -> bool:
    """Return whether a new loader differs from another in its batches alone.

    An attribute of the same name as an argument may not be what was given, and the user may have set others.
    """
    if not vars(loader).keys() <= vars(new).keys():
        return False
    of_torch = (RandomSampler, SequentialSampler)  # a loader creates these itself
    same_sampler = new.sampler is loader.sampler or type(new.sampler) is type(loader.sampler) in of_torch
    shown = arguments - {"sampler", "shuffle"}
    return same_sampler and all(_is_same(getattr(new, name), getattr(loader, name)) for name in shown)


def _is_same(one: Any, other: Any) -> bool:
    return one is other or (isinstance(one, bool | int | float | str | tuple) and one == other)


def _create(kind: type[DataLoader[Any]], arguments: dict[str, Any]) -> tuple[DataLoader[Any], Set[str]]:
    """Create a loader. Leaves out an argument of DataLoader that the class itself gives to DataLoader.

    Returns:
        The loader, and the names of the arguments that it was given.
    """
    try:
        return kind(**arguments), arguments.keys()
    except TypeError as error:
        given = re.search(r"got multiple values for keyword argument '(\w+)'", str(error))
        if given is None or given[1] not in arguments:
            raise
    return _create(kind, {name: value for name, value in arguments.items() if name != given[1]})


def _copy_loader(loader: DataLoader[Any], changes: dict[str, Any]) -> DataLoader[Any]:
    """Return a copy of a loader, with another batch sampler."""
    if loader.batch_sampler is not None:
        attributes = {"batch_sampler": _sampler_like(loader.batch_sampler, changes)}
    else:
        attributes = {"sampler": _sampler_like(loader.sampler, changes)}
    if loader.batch_size is not None:
        attributes |= changes
    new = copy.copy(loader)
    methods = {name: value for name, value in vars(loader).items() if getattr(value, "__self__", None) is loader}
    attributes |= {name: MethodType(value.__func__, new) for name, value in methods.items()}
    # A DataLoader refuses to set some of these attributes, but reads them only at the start of an epoch.
    vars(new).update(attributes, _iterator=None)
    return new


def _sampler_like(sampler: Any, changes: dict[str, Any]) -> Any:
    """Return a sampler of batches like this one, with another batch size.

    Raises:
        ValueError: it has no batch size, or its batches do not follow that.
    """
    if _own_batch_size(sampler) is None:
        raise ValueError("neither it nor its sampler has a batch size")
    changes = {name: value for name, value in changes.items() if hasattr(sampler, name)}
    for make in (_recreate_sampler, _copy_sampler):
        new = make(sampler, changes)
        if new is not None and _follows(new, sampler, changes["batch_size"]):
            return new
    raise ValueError(f"the batches of its {class_name(sampler)} do not follow a batch size that is set")


def _recreate_sampler(sampler: Any, changes: dict[str, Any]) -> Any:
    arguments = _arguments(sampler, changes)
    with suppress(Exception):  # an attribute is not the argument of the same name, or the class refuses the batch size
        return None if arguments is None else type(sampler)(**arguments)
    return None


def _copy_sampler(sampler: Any, changes: dict[str, Any]) -> Any:
    new = copy.copy(sampler)
    with suppress(AttributeError):  # its batch size is read-only
        for name, value in changes.items():
            setattr(new, name, value)
        return new
    return None


def _follows(new: Any, sampler: Any, batch_size: int) -> bool:
    """Return whether a sampler's batches have a batch size. A sampler may make its batches when it is created."""
    sizes = _first_sizes(new)
    return _own_batch_size(new) == batch_size and (
        max(sizes, default=batch_size) == batch_size or sizes != _first_sizes(sampler)
    )


def _first_sizes(sampler: Any) -> list[int]:
    """Return the sizes of a sampler's first batches. The random state does not change."""
    restores: list[Callable[[], object]]
    restores = [partial(random.setstate, random.getstate()), partial(np.random.set_state, np.random.get_state())]
    for generator in _generators(sampler):
        if isinstance(generator, torch.Generator):
            restores.append(partial(generator.set_state, generator.get_state()))
        elif isinstance(generator, random.Random):
            restores.append(partial(generator.setstate, generator.getstate()))
        else:
            bits = generator.bit_generator
            restores.append(partial(setattr, bits, "state", bits.state))
    try:
        return [length(batch) or 0 for batch in islice(sampler, PEEKED_BATCHES)]
    finally:
        for restore in restores:
            restore()


def _generators(sampler: Any) -> list[torch.Generator | random.Random | np.random.Generator]:
    """Return torch's default generator, and those that a sampler and the sampler in it hold."""
    held = [
        value
        for each in (sampler, getattr(sampler, "sampler", None))
        for value in getattr(each, "__dict__", {}).values()
    ]
    kinds = (torch.Generator, random.Random, np.random.Generator)
    return [torch.default_generator, *(value for value in held if isinstance(value, kinds))]


def _arguments(value: Any, changes: dict[str, Any], skipped: Set[str] = frozenset()) -> dict[str, Any] | None:
    """Return the arguments for another object like this one, or None if it does not show all of them.

    An object shows an argument as an attribute of the same name. Arguments that have their default are left out.
    """
    arguments = {}
    for name, parameter in _parameters(type(value)).items():
        if name in skipped:
            continue
        if name in changes:
            arguments[name] = changes[name]
            continue
        if not hasattr(value, name):
            return None
        argument = getattr(value, name)
        if argument is not parameter.default:
            arguments[name] = argument
    return arguments if changes.keys() <= arguments.keys() else None


def _parameters(kind: type) -> dict[str, Parameter]:
    """Return the parameters of a class, with those of DataLoader if the class passes keyword arguments on to it."""
    own = dict(signature(kind).parameters)
    passes_on = any(each.kind is Parameter.VAR_KEYWORD for each in own.values()) and issubclass(kind, DataLoader)
    parameters = dict(signature(DataLoader).parameters) | own if passes_on else own
    variadic = (Parameter.VAR_KEYWORD, Parameter.VAR_POSITIONAL)
    return {name: each for name, each in parameters.items() if each.kind not in variadic}
