"""What Lightning gets from the factory that it calls for every Trainer."""

import sys
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

import pytest

from lightning_bso.factory import GROUPS, make_callbacks
from lightning_bso.lightning.families import FAMILIES

QUIET = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables that let every Trainer use a server."""
    monkeypatch.setenv("ZEUS_BSO_AUTO", "1")
    monkeypatch.setenv("ZEUS_BSO_SERVER_URL", "http://127.0.0.1:1")


def names_of_callbacks(family: str) -> list[str]:
    pl: Any = import_module(family)
    trainer = pl.Trainer(accelerator="cpu", **dict.fromkeys(QUIET, False))
    return [type(callback).__name__ for callback in trainer.callbacks]


@pytest.mark.parametrize("group", GROUPS)
def test_lightning_finds_it_under_each_name(group: str) -> None:
    assert make_callbacks in [entry.load() for entry in entry_points(group=group)]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.usefixtures("on")
def test_every_trainer_gets_the_callback(family: str) -> None:
    assert names_of_callbacks(family) == ["AutomaticBSOCallback"]


@pytest.mark.parametrize("family", FAMILIES)
def test_no_trainer_gets_it_without_the_variables(family: str) -> None:
    assert names_of_callbacks(family) == []


@pytest.mark.usefixtures("on")
def test_a_callback_that_cannot_be_imported_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "lightning_bso.lightning.automatic", None)
    assert make_callbacks() == []
    assert "The automatic batch-size optimizer is off: ModuleNotFoundError" in caplog.text
