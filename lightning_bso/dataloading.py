"""How a batch size reaches the training data, and the proof that it has.

A batch size is set before Lightning builds its loaders: on the loader given to `fit`, else on every
attribute of that name on the module, its hparams, the datamodule and its hparams.
"""

from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.parsing import lightning_hasattr, lightning_setattr
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch.utils.data import DataLoader, IterableDataset


def find_setter(trainer: pl.Trainer, module: pl.LightningModule, attribute: str) -> Callable[[int], None]:
    """What sets the batch size of this fit's training data; call it in `Callback.setup`.

    Args:
        trainer: the trainer in `setup`, before its loaders are built.
        module: the module that is fitted.
        attribute: name of the attribute that holds the batch size, where no loader was given to `fit`.

    Raises:
        MisconfigurationException: there is nothing to set, or a loader that cannot be made anew.
    """
    source = trainer.fit_loop._data_source
    if not source.is_module():
        loader = _rebuildable(source.instance)

        def replace_loader(batch_size: int) -> None:
            source.instance = with_batch_size(loader, batch_size)
            if lightning_hasattr(module, attribute):  # what is logged and saved tells the truth
                _set_attribute(trainer, module, attribute, batch_size)

        return replace_loader
    if not lightning_hasattr(module, attribute):
        raise MisconfigurationException(
            f"ZeusBSOCallback found no attribute {attribute!r} to put the batch size in: neither on the "
            "LightningModule or its hparams, nor on the LightningDataModule or its hparams. Add it and use it "
            f"where the train loader is built (DataLoader(..., batch_size=self.{attribute})), or give the name "
            "of yours as batch_arg_name"
        )
    return lambda batch_size: _set_attribute(trainer, module, attribute, batch_size)


def _set_attribute(trainer: pl.Trainer, module: pl.LightningModule, attribute: str, batch_size: int) -> None:
    lightning_setattr(module, attribute, batch_size)
    for holder in (module, trainer.datamodule):  # type: ignore[attr-defined]  # set by a connector
        initial = getattr(holder, "_hparams_initial", None)
        if initial is not None and attribute in initial:
            initial[attribute] = batch_size  # it is these that Lightning logs, later on


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

    Raises:
        MisconfigurationException: the training data come in batches of another size.
    """
    combined = trainer.fit_loop._combined_loader
    loaders = combined.flattened if combined is not None else []
    found = {size for loader in loaders if (size := _batch_size(loader)) is not None}
    if not found:
        kinds = ", ".join(sorted({type(loader).__name__ for loader in loaders}))
        rank_zero_warn(
            f"ZeusBSOCallback cannot see the batch size of the train loader ({kinds}). Make sure that it is "
            f"{batch_size}: what this run costs is put down to that batch size"
        )
    elif batch_size not in found:
        raise MisconfigurationException(
            f"the batch size {batch_size} did not reach the train loader, which has {', '.join(map(str, found))}. "
            "Build the loader in train_dataloader() from the attribute that the batch size is put in; one built "
            "in __init__ or in the datamodule's setup(), or with a fixed number, keeps its own"
        )


def _batch_size(loader: Any) -> int | None:
    """Batch size of a loader, None where it does not say."""
    size = getattr(loader, "batch_size", None)
    if size is None:
        size = getattr(getattr(loader, "batch_sampler", None), "batch_size", None)
    return size if isinstance(size, int) else None


def _rebuildable(loader: Any) -> DataLoader[Any]:
    remedy = (
        "give fit a plain DataLoader made with batch_size=…, or no loader but a module or datamodule whose "
        "train_dataloader() uses its batch_size attribute"
    )
    if type(loader) is not DataLoader:
        raise MisconfigurationException(
            f"ZeusBSOCallback cannot set the batch size of the {type(loader).__name__} given to fit; {remedy}"
        )
    if loader.batch_size is None:
        raise MisconfigurationException(
            "the DataLoader given to fit has a batch_sampler, or no batching, so its batch size cannot be set; "
            f"{remedy}"
        )
    return loader
