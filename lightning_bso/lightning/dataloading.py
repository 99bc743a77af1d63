"""How a batch size reaches the training data, and the proof that it has.

A batch size is set before Lightning builds its loaders: on the loaders given to `fit`, else on every
attribute of a name on the module, its hparams, the datamodule and its hparams.
"""

import copy
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from lightning.pytorch.utilities import CombinedLoader
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch.utils._pytree import keystr, tree_flatten_with_path, tree_map
from torch.utils.data import DataLoader, IterableDataset


def find_setter(trainer: pl.Trainer, module: pl.LightningModule, names: Sequence[str]) -> Callable[[int], None]:
    """What sets the batch size of this fit's training data; call it in `Callback.setup`.

    Args:
        trainer: the trainer in `setup`, before its loaders are built.
        module: the module that is fitted.
        names: of the attributes that hold the batch size; dots lead into an attribute ("data.train.batch_size"). Where
            loaders were given to `fit` these count, and the attributes that exist are set beside them.

    Raises:
        MisconfigurationException: there is nothing to set, or a loader that cannot be made anew.
    """
    source = trainer.fit_loop._data_source
    found = {name: list(_places(trainer, module, name.split("."))) for name in names}
    settable = {name: [place for place in places if _is_settable(*place)] for name, places in found.items()}
    loaders = None
    if not source.is_module():
        loaders = source.instance
        _with_batch_size(loaders, 1)  # refuses what cannot be made anew
    else:
        for name in names:
            _check_settable(name, bool(found[name]), bool(settable[name]))

    def set_batch_size(batch_size: int) -> None:
        if loaders is not None:
            source.instance = _with_batch_size(loaders, batch_size)
        for places in settable.values():
            for holder, last in places:
                _set(holder, last, batch_size)

    return set_batch_size


def split(batch_size: int, max_device_batch_size: int) -> tuple[int, int]:
    """The fewest equal parts of a batch that are small enough for a device.

    Args:
        batch_size: that of one device.
        max_device_batch_size: the most that a device takes at a time.

    Returns:
        The size of a part, and the number of parts: what `Trainer.accumulate_grad_batches` is to be.
    """
    parts = -(-batch_size // max_device_batch_size)
    while batch_size % parts:
        parts += 1
    return batch_size // parts, parts


def check_can_accumulate(trainer: pl.Trainer, module: pl.LightningModule) -> None:
    """Refuse a training whose gradients cannot be accumulated by the Trainer; call it in `Callback.setup`.

    Raises:
        MisconfigurationException: it is optimized by hand, or accumulates gradients already.
    """
    if not module.automatic_optimization:
        obstacle = "this module optimizes by hand (automatic_optimization=False), where Lightning accumulates nothing"
    elif trainer.accumulate_grad_batches != 1:
        obstacle = f"the Trainer has accumulate_grad_batches={trainer.accumulate_grad_batches} already"
    elif any(isinstance(one, GradientAccumulationScheduler) for one in trainer.callbacks):  # type: ignore[attr-defined]
        obstacle = "a GradientAccumulationScheduler accumulates already"
    else:
        return
    raise MisconfigurationException(
        f"accumulate='auto' sets the Trainer's accumulate_grad_batches, but {obstacle}. Leave one of them out; "
        "max_device_batch_size alone refuses the batch sizes that a device cannot take"
    )


def _places(trainer: pl.Trainer, module: pl.LightningModule, path: list[str]) -> Iterator[tuple[Any, str]]:
    """Everything that a path of names leads to, as what holds it and the last name."""
    for part in (module, trainer.datamodule):  # type: ignore[attr-defined]  # set by a connector
        if part is None:
            continue
        for holder in (part, part.hparams, getattr(part, "_hparams_initial", None)):  # Lightning logs the last, later
            for name in path[:-1]:
                holder = _get(holder, name)
            if _get(holder, path[-1], _MISSING) is not _MISSING:
                yield holder, path[-1]


_MISSING = object()


def _get(holder: Any, name: str, default: Any = None) -> Any:
    if isinstance(holder, MutableMapping):
        return holder.get(name, default)
    return getattr(holder, name, default)


def _set(holder: Any, name: str, value: Any) -> None:
    if isinstance(holder, MutableMapping):
        holder[name] = value
    else:
        setattr(holder, name, value)


def _is_settable(holder: Any, name: str) -> bool:
    """Whether it can be set, which a property or a frozen configuration cannot."""
    try:
        _set(holder, name, _get(holder, name))
    except Exception:  # each library of configurations has its own
        return False
    return True


def _check_settable(name: str, is_there: bool, is_settable: bool) -> None:
    if is_settable:
        return
    problem = f"cannot set the attribute {name!r}, which is read-only. Let it be set, and"
    if not is_there:
        problem = (
            f"found no attribute {name!r} to put the batch size in: neither on the LightningModule or its hparams, "
            "nor on the LightningDataModule or its hparams. Add it and"
        )
    raise MisconfigurationException(
        f"ZeusBSOCallback {problem} use it where the train loader is built (DataLoader(..., batch_size=self.{name})), "
        "or give the name of yours as batch_arg_name"
    )


def _with_batch_size(loaders: Any, batch_size: int) -> Any:
    """A loader, or a collection of them, like this one with another batch size."""
    if not isinstance(loaders, CombinedLoader):
        return tree_map(lambda loader: with_batch_size(_rebuildable(loader), batch_size), loaders)
    combined = copy.copy(loaders)
    combined.flattened = [with_batch_size(_rebuildable(loader), batch_size) for loader in loaders.flattened]
    return combined


def with_batch_size(loader: DataLoader[Any], batch_size: int) -> DataLoader[Any]:
    """A loader like this one with another batch size."""
    arguments: dict[str, Any] = {
        name: getattr(loader, name)
        for name in (
            "num_workers",
            "collate_fn",
            "pin_memory",
            "drop_last",
            "timeout",
            "worker_init_fn",
            "multiprocessing_context",
            "generator",
            "prefetch_factor",
            "persistent_workers",
            "in_order",
        )
    }
    if not isinstance(loader.dataset, IterableDataset):
        arguments["sampler"] = loader.sampler
    return DataLoader(loader.dataset, batch_size=batch_size, **arguments)


def check_reached(trainer: pl.Trainer, batch_size: int) -> None:
    """Compare the batch size of the loaders that Lightning has built; call it in `Callback.on_train_start`.

    Beside a loader that has it another may keep one of its own on purpose, which is said.

    Raises:
        MisconfigurationException: all training data come in batches of another size.
    """
    found = {name: _batch_size(loader) for name, loader in _named_train_loaders(trainer)}
    other = {name: size for name, size in found.items() if size not in (batch_size, None)}
    if not any(found.values()):
        kinds = ", ".join(sorted({type(loader).__name__ for loader in train_loaders(trainer)}))
        rank_zero_warn(
            f"ZeusBSOCallback cannot see the batch size of the train loader ({kinds}). Make sure that it is "
            f"{batch_size}: what this run costs is put down to that batch size"
        )
    elif batch_size not in found.values():
        sizes = ", ".join(map(str, sorted(set(filter(None, other.values())))))
        raise MisconfigurationException(
            f"the batch size {batch_size} did not reach the train loader, which has {sizes}. "
            "Build the loader in train_dataloader() from the attribute that the batch size is put in; one built "
            "in __init__ or in the datamodule's setup(), or with a fixed number, keeps its own"
        )
    elif other:
        kept = ", ".join(f"{name} has {size}" for name, size in other.items())
        rank_zero_warn(
            f"The batch size {batch_size} did not reach all train loaders: {kept}. If that is not meant, build them "
            "in train_dataloader() from the attribute that the batch size is put in"
        )


def loader_batch_sizes(trainer: pl.Trainer) -> set[int]:
    """The batch sizes of the train loaders that Lightning has built, of those that tell."""
    return {size for loader in train_loaders(trainer) if (size := _batch_size(loader)) is not None}


def train_loaders(trainer: pl.Trainer) -> list[Any]:
    """The train loaders that Lightning has built."""
    return [loader for _, loader in _named_train_loaders(trainer)]


def _named_train_loaders(trainer: pl.Trainer) -> list[tuple[str, Any]]:
    """The train loaders with their places in the collection of them, such as "['a']"."""
    combined = trainer.fit_loop._combined_loader
    if combined is None:
        return []
    places, _ = tree_flatten_with_path(combined.iterables)
    return [(keystr(path), loader) for (path, _), loader in zip(places, combined.flattened, strict=True)]


def _batch_size(loader: Any) -> int | None:
    """Batch size of a loader, None where it does not say."""
    # The sampler's first: it makes the batches, and its size can be set, while the loader's stays as it was made.
    sizes = (getattr(holder, "batch_size", None) for holder in (getattr(loader, "batch_sampler", None), loader))
    return next((size for size in sizes if isinstance(size, int)), None)


def _rebuildable(loader: Any) -> DataLoader[Any]:
    remedy = (
        "give fit plain DataLoaders made with batch_size=…, or none but a module or datamodule whose "
        "train_dataloader() uses its batch_size attribute, or override ZeusBSOCallback.batch_size_setter"
    )
    if type(loader) is not DataLoader:
        raise MisconfigurationException(
            f"ZeusBSOCallback cannot set the batch size of the {type(loader).__name__} given to fit; {remedy}"
        )
    if loader.batch_size is None:
        raise MisconfigurationException(
            f"a DataLoader given to fit has a batch_sampler, or no batching, so its batch size cannot be set; {remedy}"
        )
    return loader
