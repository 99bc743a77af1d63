"""Sets the batch size of the training data, and checks that it has reached the train loaders.

The batch size is set before Lightning builds its loaders. It is set on the loaders given to `fit`, or else on every
attribute of the given name: on the module, its hparams, the datamodule and its hparams.
`callback.py` decides when, and `probing.py` uses the same functions for its short fits.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any

from torch.utils._pytree import keystr, tree_flatten_with_path, tree_map
from torch.utils.data import DataLoader, IterableDataset

from lightning_bso.lightning.families import classes, misconfiguration, rank_zero_warn

if TYPE_CHECKING:
    import lightning.pytorch as pl


def find_setter(trainer: pl.Trainer, module: pl.LightningModule, names: Sequence[str]) -> Callable[[int], None]:
    """Return the function that sets the batch size of this fit's training data. Call this in `Callback.setup`.

    Args:
        trainer: the trainer in `setup`, before it builds its loaders.
        module: the module to fit.
        names: names of the attributes that hold the batch size. Dots lead into an attribute ("data.train.batch_size").
            If loaders were given to `fit`, the attributes are optional, and those that exist are set too.

    Raises:
        MisconfigurationException: nothing holds the batch size, or a loader cannot be rebuilt.
    """
    source = trainer.fit_loop._data_source
    attributes = {name: list(_find_attributes(trainer, module, name.split("."))) for name in names}
    settable = {name: [each for each in matches if _is_settable(*each)] for name, matches in attributes.items()}
    loaders = None
    if not source.is_module():
        loaders = source.instance
        _rebuild(loaders, 1)  # raises if a loader cannot be rebuilt
    else:
        for name in names:
            _check_settable(name, bool(attributes[name]), bool(settable[name]))

    def set_batch_size(batch_size: int) -> None:
        if loaders is not None:
            source.instance = _rebuild(loaders, batch_size)
        for matches in settable.values():
            for holder, attribute in matches:
                _set(holder, attribute, batch_size)

    return set_batch_size


def split(batch_size: int, max_device_batch_size: int) -> tuple[int, int]:
    """Split a batch into the fewest equal parts that are small enough for a device.

    Args:
        batch_size: batch size of one device.
        max_device_batch_size: the largest batch that a device takes at a time.

    Returns:
        The size of a part, and the number of parts, which is the value for `Trainer.accumulate_grad_batches`.
    """
    parts = -(-batch_size // max_device_batch_size)
    while batch_size % parts:
        parts += 1
    return batch_size // parts, parts


def check_can_accumulate(trainer: pl.Trainer, module: pl.LightningModule) -> None:
    """Refuse a training whose gradients the Trainer cannot accumulate. Call this in `Callback.setup`.

    Raises:
        MisconfigurationException: the module optimizes manually, or the training already accumulates gradients.
    """
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]  # set by a connector
    if not module.automatic_optimization:
        obstacle = "this module optimizes manually (automatic_optimization=False), where Lightning does not accumulate"
    elif trainer.accumulate_grad_batches != 1:
        obstacle = f"the Trainer already has accumulate_grad_batches={trainer.accumulate_grad_batches}"
    elif any(isinstance(each, classes("callbacks:GradientAccumulationScheduler")) for each in callbacks):
        obstacle = "a GradientAccumulationScheduler already sets it"
    else:
        return
    raise misconfiguration(
        f"accumulate='auto' sets the Trainer's accumulate_grad_batches, but {obstacle}. Use only one of the two. "
        "Without accumulate, max_device_batch_size refuses a job with batch sizes that a device cannot take"
    )


def _find_attributes(trainer: pl.Trainer, module: pl.LightningModule, path: list[str]) -> Iterator[tuple[Any, str]]:
    """Yield every attribute at a path of names, as the object that holds it and the last name."""
    for part in (module, trainer.datamodule):  # type: ignore[attr-defined]  # set by a connector
        if part is None:
            continue
        # Lightning logs `_hparams_initial` as the hyperparameters, after `setup`.
        for holder in (part, part.hparams, getattr(part, "_hparams_initial", None)):
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
    """Return whether an attribute can be set. A property or a frozen configuration may not allow it."""
    try:
        _set(holder, name, _get(holder, name))
    except Exception:  # each configuration library raises its own class
        return False
    return True


def _check_settable(name: str, exists: bool, is_settable: bool) -> None:
    if is_settable:
        return
    problem = f"cannot set the attribute {name!r}, which is read-only. Make it writable"
    if not exists:
        problem = (
            f"found no attribute {name!r} for the batch size on the LightningModule, the LightningDataModule or their "
            "hparams. Add it"
        )
    raise misconfiguration(
        f"ZeusBSOCallback {problem} and build the train loader with it (DataLoader(..., batch_size=self.{name})), or "
        "give the name of your own attribute as batch_arg_name"
    )


def _rebuild(loaders: Any, batch_size: int) -> Any:
    """Return a loader, or a collection of loaders, like this one with another batch size."""
    if not isinstance(loaders, classes("utilities.combined_loader:CombinedLoader")):
        return tree_map(lambda loader: with_batch_size(_rebuildable(loader), batch_size), loaders)
    combined = copy.copy(loaders)
    combined.flattened = [with_batch_size(_rebuildable(loader), batch_size) for loader in loaders.flattened]
    return combined


def with_batch_size(loader: DataLoader[Any], batch_size: int) -> DataLoader[Any]:
    """Return a loader like this one with another batch size."""
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
    """Check that the loaders that Lightning has built have this batch size. Call this in `Callback.on_train_start`.

    If at least one loader has it, another may have its own on purpose. That is only a warning.

    Raises:
        MisconfigurationException: no train loader has this batch size, and at least one has another.
    """
    sizes = {name: _batch_size(loader) for name, loader in _named_train_loaders(trainer)}
    others = {name: size for name, size in sizes.items() if size not in (batch_size, None)}
    if not any(sizes.values()):
        classes = ", ".join(sorted({type(loader).__name__ for loader in train_loaders(trainer)}))
        rank_zero_warn(
            f"ZeusBSOCallback cannot see the batch size of the train loader ({classes}). Make sure that it is "
            f"{batch_size}: the server records this run's cost under that batch size"
        )
    elif batch_size not in sizes.values():
        other_sizes = ", ".join(map(str, sorted(set(filter(None, others.values())))))
        raise misconfiguration(
            f"the batch size {batch_size} did not reach the train loader, which has {other_sizes}. "
            "Build the loader in train_dataloader() from the attribute that holds the batch size. A loader built in "
            "__init__ or in the datamodule's setup(), or with a fixed number, keeps its own batch size"
        )
    elif others:
        unchanged = ", ".join(f"{name} has {size}" for name, size in others.items())
        rank_zero_warn(
            f"The batch size {batch_size} did not reach all train loaders: {unchanged}. If that is not intended, build "
            "them in train_dataloader() from the attribute that holds the batch size"
        )


def loader_batch_sizes(trainer: pl.Trainer) -> set[int]:
    """Return the batch sizes of the train loaders that Lightning has built. Skips loaders that have none."""
    return {size for loader in train_loaders(trainer) if (size := _batch_size(loader)) is not None}


def train_loaders(trainer: pl.Trainer) -> list[Any]:
    """Return the train loaders that Lightning has built."""
    return [loader for _, loader in _named_train_loaders(trainer)]


def _named_train_loaders(trainer: pl.Trainer) -> list[tuple[str, Any]]:
    """Return the train loaders with their positions in the collection, such as "['a']"."""
    combined = trainer.fit_loop._combined_loader
    if combined is None:
        return []
    positions, _ = tree_flatten_with_path(combined.iterables)
    return [(keystr(path), loader) for (path, _), loader in zip(positions, combined.flattened, strict=True)]


def _batch_size(loader: Any) -> int | None:
    """Return the batch size of a loader, or None if it has none."""
    # The batch sampler comes first: it makes the batches, and its batch size can change. The loader's cannot.
    sizes = (getattr(holder, "batch_size", None) for holder in (getattr(loader, "batch_sampler", None), loader))
    return next((size for size in sizes if isinstance(size, int)), None)


def _rebuildable(loader: Any) -> DataLoader[Any]:
    remedy = (
        "Give fit plain DataLoaders with batch_size=…; or give fit no loader, and use the batch_size attribute in the "
        "train_dataloader() of the module or datamodule; or override ZeusBSOCallback.batch_size_setter"
    )
    if type(loader) is not DataLoader:
        raise misconfiguration(
            f"ZeusBSOCallback cannot set the batch size of the {type(loader).__name__} given to fit. {remedy}"
        )
    if loader.batch_size is None:
        raise misconfiguration(
            f"a DataLoader given to fit has a batch_sampler, or no batching, so its batch size cannot be set. {remedy}"
        )
    return loader
