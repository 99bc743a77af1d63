"""Sets the batch size of the training data, and checks that it has reached the train loaders.

The batch size is set before Lightning builds its loaders. It is set on the loaders given to `fit`, or else wherever the
module and the datamodule hold it. `locating.py` finds these places, and `loaders.py` makes a loader like another.
`callback.py` decides when, and `probing.py` uses the same functions for its short fits.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._pytree import keystr, tree_flatten_with_path, tree_leaves, tree_map
from torch.utils.data import DataLoader

from lightning_bso.lightning import locating
from lightning_bso.lightning.families import classes, family_of, find, misconfiguration, rank_zero_info, rank_zero_warn
from lightning_bso.lightning.loaders import batch_size_of, leaves_one_sample, length, possible_samples, with_batch_size
from lightning_bso.lightning.locating import class_name

if TYPE_CHECKING:
    import lightning.pytorch as pl

_MAX_SHOWN = 5
"""Limit of the numbers of samples that an error names."""


def find_setter(
    trainer: pl.Trainer, module: pl.LightningModule, names: Sequence[str], size: int
) -> Callable[[int], None]:
    """Return the function that sets the batch size of this fit's training data. Call this in `Callback.setup`.

    Args:
        trainer: the trainer in `setup`, before it builds its loaders.
        module: the module to fit.
        names: names of the attributes that hold the batch size. Dots lead into an attribute ("data.train.batch_size").
            "batch_size" alone is also looked for in settings (see `locating.find_in_settings`). If loaders were given
            to `fit`, the attributes are optional, and those that exist are set too.
        size: a batch size of the job for one device, with which loaders are rebuilt on trial.

    Raises:
        MisconfigurationException: nothing holds the batch size, or a loader cannot be rebuilt.
    """
    source = trainer.fit_loop._data_source
    places = _find_places(trainer, module, names)
    settable = {name: [place for place in found if place.is_settable] for name, found in places.items()}
    nested = [place for place in _find_in_settings(trainer, module, names) if place.is_settable]
    in_settings = dict.fromkeys(place.description for place in nested)
    if in_settings:
        rank_zero_info("ZeusBSOCallback sets the batch size in %s", ", ".join(in_settings))
    loaders = None
    if not source.is_module():
        loaders = source.instance
        _rebuild(loaders, size, 1)  # raises if a loader cannot be rebuilt
        _warn_of_ratios(loaders)
    else:
        missing = next((name for name in names if not settable[name]), None)
        if missing is not None:
            raise _not_settable(missing, bool(places[missing]), locating.suggest(trainer, module))

    def set_batch_size(batch_size: int) -> None:
        if loaders is not None:
            source.instance = _rebuild(loaders, batch_size, trainer.world_size)
        for found in settable.values():
            for place in found:
                place.set(batch_size)

    return set_batch_size


def present_batch_size(trainer: pl.Trainer, module: pl.LightningModule, names: Sequence[str]) -> int | None:
    """Return the batch size that the setter of `find_setter` replaces: that of a loader, on one device.

    None: it is not known, because what holds it has no number.
    """
    source = trainer.fit_loop._data_source
    if not source.is_module():
        return next(filter(None, map(batch_size_of, _flattened(source.instance))), None)
    places = _find_places(trainer, module, names)
    sizes = (place.value for name in names for place in places[name] if place.is_settable)
    return next((int(size) for size in sizes if locating.is_batch_size(size)), None)


def remember(trainer: pl.Trainer, module: pl.LightningModule, names: Sequence[str]) -> Callable[[], None]:
    """Return a function that puts back what `find_setter` and gradient accumulation change, as it is now."""
    source = trainer.fit_loop._data_source
    loaders, accumulated, limit = source.instance, trainer.accumulate_grad_batches, trainer.limit_train_batches
    found = _find_places(trainer, module, names).values()
    values = [(place, place.value) for places in found for place in places if place.is_settable]

    def put_back() -> None:
        source.instance, trainer.accumulate_grad_batches, trainer.limit_train_batches = loaders, accumulated, limit
        for place, value in values:
            place.set(value)

    return put_back


def make_train_loaders(trainer: pl.Trainer) -> list[Any]:
    """Return train loaders as Lightning would build them now, for a look at them. The random state does not change.

    Empty: they cannot be built yet, as where the module's `setup`, which comes later, prepares the data.
    """
    source = trainer.fit_loop._data_source
    isolated_rng = find(family_of(trainer), "utilities.seed:isolate_rng")
    with isolated_rng():
        try:
            return _flattened(getattr(source.instance, source.name)() if source.is_module() else source.instance)
        except Exception:  # of the training's own code; where it matters, Lightning's own call raises it again
            return []


def fewest_batches(trainer: pl.Trainer) -> int:
    """Return how many batches an epoch needs at least, so that Lightning trains and validates."""
    interval = getattr(trainer, "val_check_interval", None)  # Lightning sets none if the interval is a time
    return max(interval, 1) if isinstance(interval, int) and trainer.check_val_every_n_epoch is not None else 1


def why_too_large(trainer: pl.Trainer) -> str | None:
    """Say why the batch size that is set is too large for the training data. None: it is not, as far as is known.

    Call this in `Callback.setup`: it is the last moment at which the batch size can be put back.
    """
    needed = fewest_batches(trainer)
    limit = trainer.limit_train_batches
    for loader in make_train_loaders(trainer):
        batches = length(loader)
        if batches is None:
            continue
        batches //= trainer.world_size
        if isinstance(limit, float):
            batches = int(batches * limit)
        if batches < needed:
            return f"an epoch would have {batches} batches of {batch_size_of(loader)} samples, and it needs {needed}"
    return None


def why_left_over(trainer: pl.Trainer, module: pl.LightningModule) -> str | None:
    """Say why batch normalization would refuse an epoch's last batch. None: it would not, as far as is known.

    Call this in `Callback.setup`, as `why_too_large`.
    """
    if not any(isinstance(part, torch.nn.modules.batchnorm._BatchNorm) for part in module.modules()):
        return None
    for loader in make_train_loaders(trainer):
        size = batch_size_of(loader)
        if size is not None and leaves_one_sample(loader, size, trainer.world_size):
            return _ONE_SAMPLE_LEFT.format(size)
    return None


def _flattened(loaders: Any) -> list[Any]:
    if isinstance(loaders, classes("utilities.combined_loader:CombinedLoader")):
        return list(loaders.flattened)
    return tree_leaves(loaders)


def _find_places(
    trainer: pl.Trainer, module: pl.LightningModule, names: Sequence[str]
) -> dict[str, list[locating.Place]]:
    in_settings = _find_in_settings(trainer, module, names)
    return {name: locating.find(trainer, module, name) + in_settings for name in names}


def _find_in_settings(trainer: pl.Trainer, module: pl.LightningModule, names: Sequence[str]) -> list[locating.Place]:
    return locating.find_in_settings(trainer, module) if list(names) == [locating.NAME] else []


def split(batch_size: int, max_device_batch_size: int) -> tuple[int, int]:
    """Split a batch into the fewest equal parts that are small enough for a device.

    Args:
        batch_size: batch size of one device.
        max_device_batch_size: the largest batch that a device takes at a time.

    Returns:
        The size of a part, and the number of parts.
    """
    parts = -(-batch_size // max_device_batch_size)
    while batch_size % parts:
        parts += 1
    return batch_size // parts, parts


def check_can_accumulate(trainer: pl.Trainer, module: pl.LightningModule) -> None:
    """Refuse a training whose gradients the Trainer cannot accumulate. Call this in `Callback.setup`.

    Raises:
        MisconfigurationException: the module optimizes manually, or another callback sets what is accumulated.
    """
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]  # set by a connector
    if not module.automatic_optimization:
        obstacle = "this module optimizes manually (automatic_optimization=False), where Lightning does not accumulate"
    elif any(isinstance(each, classes("callbacks:GradientAccumulationScheduler")) for each in callbacks):
        obstacle = "a GradientAccumulationScheduler already sets it"
    else:
        return
    raise misconfiguration(
        f"accumulate='auto' sets the Trainer's accumulate_grad_batches, but {obstacle}. Use only one of the two. "
        "Without accumulate, max_device_batch_size refuses a job with batch sizes that a device cannot take"
    )


def _not_settable(name: str, exists: bool, suggestions: list[str]) -> Exception:
    problem = f"cannot set the attribute {name!r}, which is read-only. Make it writable"
    if not exists:
        problem = (
            f"found no attribute {name!r} on the LightningModule, the LightningDataModule or their hparams, and no "
            "settings with a single batch size. Add it"
        )
    candidates = [path for path in suggestions if path != name]
    names = (
        f"give the name of what holds it: {_ready(candidates)}"
        if candidates
        else "give the name of your own attribute as batch_arg_name"
    )
    return misconfiguration(
        f"ZeusBSOCallback {problem} and build the train loader with it (DataLoader(..., batch_size=self.{name})), or "
        f"{names}. If a library builds the loader before fit, ask for the batch size first, with "
        "ZeusBSOCallback(…).run()"
    )


def _ready(paths: list[str]) -> str:
    """Return paths as arguments that are ready to be copied."""
    return " or ".join(f"batch_arg_name={path!r}" for path in paths)


def _warn_of_ratios(loaders: Any) -> None:
    """Warn of loaders with different batch sizes, whose ratio is lost."""
    sizes = sorted({size for loader in _flattened(loaders) if (size := batch_size_of(loader)) is not None})
    if len(sizes) > 1:
        rank_zero_warn(
            f"The loaders given to fit have different batch sizes ({', '.join(map(str, sizes))}). All of them get the "
            "run's batch size. To keep a ratio, override ZeusBSOCallback.batch_size_setter"
        )


def _rebuild(loaders: Any, batch_size: int, ranks: int) -> Any:
    """Return a loader, or a collection of loaders, like this one with another batch size."""

    def rebuild(loader: Any) -> DataLoader[Any]:
        return _rebuild_one(loader, batch_size, ranks)

    if not isinstance(loaders, classes("utilities.combined_loader:CombinedLoader")):
        return tree_map(rebuild, loaders)
    combined = copy.copy(loaders)
    combined.flattened = [rebuild(loader) for loader in loaders.flattened]
    return combined


def _rebuild_one(loader: Any, batch_size: int, ranks: int) -> DataLoader[Any]:
    problem = "it is not a DataLoader of torch"
    if isinstance(loader, DataLoader):
        leaves_one = leaves_one_sample(loader, batch_size, ranks)
        if leaves_one:
            rank_zero_warn(f"{_ONE_SAMPLE_LEFT.format(batch_size)}. It is dropped, as with drop_last=True")
        try:
            return with_batch_size(loader, batch_size, drop_last=leaves_one)
        except ValueError as error:
            problem = str(error)
    raise misconfiguration(
        f"ZeusBSOCallback cannot set the batch size of the {class_name(loader)} given to fit: {problem}. Give fit "
        "DataLoaders with batch_size=…; or give fit no loader, and use the batch_size attribute in the "
        "train_dataloader() of the module or datamodule; or ask for the batch size before you create the loader, with "
        "ZeusBSOCallback(…).run(); or override ZeusBSOCallback.batch_size_setter"
    )


_ONE_SAMPLE_LEFT = (
    "With batch size {}, the last batch of an epoch has a single sample, which batch normalization refuses in training"
)


def check_reached(trainer: pl.Trainer, batch_size: int) -> None:
    """Check that the loaders that Lightning has built have this batch size. Call this in `Callback.on_train_start`.

    If at least one loader has it, another may have its own on purpose. That is only a warning.

    Raises:
        MisconfigurationException: no train loader has this batch size, and at least one has another.
    """
    sizes = {name: batch_size_of(loader) for name, loader in _named_train_loaders(trainer)}
    others = {name: size for name, size in sizes.items() if size not in (batch_size, None)}
    if not any(sizes.values()):
        names = ", ".join(sorted(map(class_name, train_loaders(trainer))))
        rank_zero_warn(
            f"ZeusBSOCallback cannot see the batch size of the train loader ({names}). Make sure that it is "
            f"{batch_size}: the server records this run's cost under that batch size. check='batch' looks at the first "
            "batch instead"
        )
    elif batch_size not in sizes.values():
        other_sizes = ", ".join(map(str, sorted(set(filter(None, others.values())))))
        paths = locating.suggest(trainer, trainer.lightning_module, without=batch_size)
        elsewhere = f" If another attribute holds it, give {_ready(paths)}." if paths else ""
        raise misconfiguration(
            f"the batch size {batch_size} did not reach the train loader, which has {other_sizes}.{elsewhere} "
            "Build the loader in train_dataloader() from the attribute that holds the batch size. A loader built in "
            "__init__ or in the datamodule's setup(), or with a fixed number, keeps its own batch size. Where you ask "
            "with run(), build it with run.batch_size divided by the number of devices. check='off' trusts your code"
        )
    elif others:
        unchanged = ", ".join(f"{name} has {size}" for name, size in others.items())
        rank_zero_warn(
            f"The batch size {batch_size} did not reach all train loaders: {unchanged}. If that is not intended, build "
            "them in train_dataloader() from the attribute that holds the batch size"
        )
    if any(
        leaves_one_sample(loader, batch_size) and len(loader) <= trainer.num_training_batches
        for loader in train_loaders(trainer)
    ):
        rank_zero_warn(f"{_ONE_SAMPLE_LEFT.format(batch_size)}. Create the train loader with drop_last=True")


def check_first_batch(trainer: pl.Trainer, batch: Any, batch_size: int) -> None:
    """Check that the first training batch has this many samples. Call this in `Callback.on_train_batch_start`.

    Raises:
        MisconfigurationException: it has another number, and is not the only batch of an epoch.
    """
    possible = possible_samples(batch)
    if not possible:
        rank_zero_warn(
            f"ZeusBSOCallback cannot see how many samples the first batch has ({class_name(batch)}). Make sure that it "
            f"is {batch_size}: the server records this run's cost under that batch size"
        )
    elif batch_size not in possible and not (min(possible) < batch_size and trainer.num_training_batches == 1):
        samples = " or ".join(map(str, possible[:_MAX_SHOWN]))
        raise misconfiguration(
            f"the batch size {batch_size} did not reach the training data: the first batch has {samples} samples. "
            "Build the batches from the attribute that holds the batch size. If the first dimension of a batch is not "
            "its samples, use check='loader' or check='off'"
        )


def has_training_data(trainer: pl.Trainer) -> bool:
    """Return whether a train loader has samples, as far as loaders tell. They may still be too few for a batch."""
    return any(length(getattr(loader, "dataset", None)) for loader in train_loaders(trainer))


def loader_batch_sizes(trainer: pl.Trainer) -> set[int]:
    """Return the batch sizes of the train loaders that Lightning has built. Skips loaders that have none."""
    return {size for loader in train_loaders(trainer) if (size := batch_size_of(loader)) is not None}


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
