"""A batch size in a module's or datamodule's settings is found without a name."""

import logging
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.utils.data import DataLoader

from lightning_bso import ZeusBSOCallback
from tests.lightning.trainings import FIRST_SIZE, OLD_SIZE, ROWS, Bare, fit, rows

pytestmark = pytest.mark.filterwarnings("ignore:.*max_epochs")


@dataclass
class Settings:
    """Settings of a training, as many programs have them."""

    batch_size: int = OLD_SIZE


class Configured(Bare):
    """A module that builds its loader from settings of any kind."""

    def __init__(self, name: str, settings: Any) -> None:
        super().__init__()
        setattr(self, name, settings)
        self.read = lambda: settings["batch_size"] if isinstance(settings, dict) else settings.batch_size

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(rows(), batch_size=self.read())


class ConfiguredData(pl.LightningDataModule):
    """A datamodule that passes keyword arguments on to its loaders."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__()
        self.kwargs = kwargs
        self.val_kwargs = {"batch_size": ROWS}

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(rows(), **self.kwargs)

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(rows(), **self.val_kwargs)


@pytest.mark.parametrize("name", ["kwargs", "_kwargs", "loader_kwargs", "args", "config", "cfg", "data_cfg"])
@pytest.mark.parametrize(
    "make_settings",
    [
        lambda: {"batch_size": OLD_SIZE},
        Settings,
        lambda: Namespace(batch_size=OLD_SIZE),
        lambda: {"batch_size": np.int64(OLD_SIZE)},
    ],
    ids=["dict", "dataclass", "Namespace", "number of numpy"],
)
def test_it_is_found_one_level_down(
    callback: ZeusBSOCallback, name: str, make_settings: Callable[[], Any], caplog: pytest.LogCaptureFixture
) -> None:
    module = Configured(name, make_settings())
    with caplog.at_level(logging.INFO):
        fit(callback, module, max_epochs=1)
    assert module.sizes_seen == {FIRST_SIZE}
    where = f"{name}.batch_size of tests.lightning.test_batch_size_in_settings.Configured"
    assert f"ZeusBSOCallback sets the batch size in {where}" in caplog.messages


def test_settings_for_the_validation_keep_theirs(callback: ZeusBSOCallback) -> None:
    module, data = Bare(), ConfiguredData(batch_size=OLD_SIZE)
    running = fit(callback, module, data, max_epochs=1)
    assert (module.sizes_seen, running.val_dataloaders.batch_size) == ({FIRST_SIZE}, ROWS)


def test_hyperparameters_with_settings_are_logged_with_the_batch_size_of_the_run(callback: ZeusBSOCallback) -> None:
    class WithHparams(Bare):
        def __init__(self, config: Any) -> None:
            super().__init__()
            self.save_hyperparameters()

        def train_dataloader(self) -> DataLoader[Any]:
            return DataLoader(rows(), batch_size=self.hparams.config["batch_size"])

    module = WithHparams({"batch_size": OLD_SIZE})
    fit(callback, module, max_epochs=1)
    assert module.sizes_seen == {FIRST_SIZE}
    assert module.hparams_initial["config"] == {"batch_size": FIRST_SIZE}


def test_settings_beside_an_attribute_of_the_same_size_are_set_too(callback: ZeusBSOCallback) -> None:
    module = Configured("cfg", Settings())
    module.batch_size = OLD_SIZE
    fit(callback, module, max_epochs=1)
    assert (module.batch_size, module.sizes_seen) == (FIRST_SIZE, {FIRST_SIZE})


def test_settings_beside_an_attribute_of_another_size_are_something_else(callback: ZeusBSOCallback) -> None:
    module = Configured("teacher_cfg", teacher := Settings(batch_size=7))
    module.batch_size = OLD_SIZE
    module.read = lambda: module.batch_size
    fit(callback, module, max_epochs=1)
    assert (module.sizes_seen, teacher.batch_size) == ({FIRST_SIZE}, 7)


def test_settings_of_different_sizes_are_refused_with_their_names(callback: ZeusBSOCallback) -> None:
    module = Configured("loader_kwargs", {"batch_size": OLD_SIZE})
    module.teacher_cfg = Settings(batch_size=7)
    message = r"give.*: batch_arg_name='loader_kwargs\.batch_size' or batch_arg_name='teacher_cfg\.batch_size'"
    with pytest.raises(MisconfigurationException, match=message):
        fit(callback, module, max_epochs=1)
    callback.batch_arg_name = "loader_kwargs.batch_size"
    fit(callback, module, max_epochs=1)
    assert (module.sizes_seen, module.teacher_cfg.batch_size) == ({FIRST_SIZE}, 7)


def test_settings_that_no_loader_is_built_from_are_refused_with_the_name_of_others(callback: ZeusBSOCallback) -> None:
    module = Configured("cfg", SimpleNamespace(batch_size=OLD_SIZE, train_batch_size=OLD_SIZE))
    module.read = lambda: module.cfg.train_batch_size
    with pytest.raises(MisconfigurationException, match=r"give batch_arg_name='cfg\.train_batch_size'\. Build"):
        fit(callback, module, max_epochs=1)


def test_settings_that_are_frozen_are_refused_with_what_to_do(callback: ZeusBSOCallback) -> None:
    @dataclass(frozen=True)
    class Frozen:
        batch_size: int = OLD_SIZE

    with pytest.raises(MisconfigurationException, match=r"read-only\. Make it writable") as refused:
        fit(callback, Configured("cfg", Frozen()), max_epochs=1)
    assert "batch_arg_name='" not in str(refused.value)


def test_a_name_that_is_given_is_the_only_place(callback: ZeusBSOCallback) -> None:
    module = Configured("cfg", SimpleNamespace(batch_size=OLD_SIZE, train_size=OLD_SIZE))
    module.read = lambda: module.cfg.train_size
    callback.batch_arg_name = "cfg.train_size"
    fit(callback, module, max_epochs=1)
    assert (module.sizes_seen, module.cfg.batch_size) == ({FIRST_SIZE}, OLD_SIZE)
