"""One import for both names of Lightning: `lightning.pytorch` and `pytorch_lightning`."""

import pickle
from importlib import import_module
from inspect import signature
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from lightning_bso import BsoClient, BSOLightningCLI, ZeusBSOCallback, ZeusPowerLimitCallback
from lightning_bso.lightning.families import FAMILIES, misconfiguration
from tests.client.jobs import ScriptedMonitor, job, only_trial
from tests.lightning.unaware import launch
from tests.servers import Server
from tests.warm import TORCH_IMPORTS

QUIET = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")


@pytest.fixture(params=FAMILIES)
def pl(request: pytest.FixtureRequest) -> ModuleType:
    """Lightning under one of its names. The other may have been imported before."""
    return import_module(request.param)


def module_of(pl: Any) -> type:
    """Return a module's class of this family."""

    class Module(pl.LightningModule):
        def __init__(self, batch_size: int = 4) -> None:
            super().__init__()
            self.batch_size = batch_size
            self.layer = torch.nn.Linear(1, 1)
            self.sizes_seen: set[int] = set()

        def training_step(self, batch: list[torch.Tensor], _: int) -> torch.Tensor:
            self.sizes_seen.add(len(batch[0]))
            return self.layer(batch[0]).mean() ** 2

        def validation_step(self, batch: list[torch.Tensor], _: int) -> None:
            self.log("val_acc", 1.0)

        def train_dataloader(self) -> DataLoader[Any]:
            return DataLoader(TensorDataset(torch.rand(64, 1)), batch_size=self.batch_size)

        def val_dataloader(self) -> DataLoader[Any]:
            return self.train_dataloader()

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    return Module


def test_a_training_of_either_family_runs_with_the_servers_batch_size(
    pl: Any, server: Server, client: BsoClient
) -> None:
    fields = job()
    callback = ZeusBSOCallback(server.url, fields, energy_monitor=ScriptedMonitor(), lr_scaling="linear")
    module = module_of(pl)()
    trainer = pl.Trainer(accelerator="cpu", max_epochs=10, callbacks=callback, **dict.fromkeys(QUIET, False))
    trainer.fit(module)
    assert module.sizes_seen == {16}
    assert only_trial(client, fields["job_id_prefix"]).converged


@pytest.mark.parametrize("callback_class", [ZeusBSOCallback, ZeusPowerLimitCallback])
def test_a_callback_is_one_of_every_family_that_the_program_has_imported(pl: Any, callback_class: type) -> None:
    assert isinstance(callback_class(), pl.Callback)


def test_a_wrong_argument_raises_the_error_of_either_family(pl: Any) -> None:
    error_class = import_module(f"{pl.__name__}.utilities.exceptions").MisconfigurationException
    with pytest.raises(error_class, match="on_fail='ignore' is not a valid value"):
        ZeusBSOCallback(on_fail="ignore")  # type: ignore[arg-type]


@pytest.mark.usefixtures("pl")
def test_the_error_comes_through_another_process() -> None:
    error = misconfiguration("a reason")
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again)) == (type(error), "a reason")


def test_the_command_line_is_that_of_the_models_family(pl: Any, tmp_path: Path) -> None:
    cli = BSOLightningCLI(
        module_of(pl),
        args=[],
        run=False,
        trainer_defaults={"default_root_dir": tmp_path, "accelerator": "cpu", **dict.fromkeys(QUIET, False)},
    )
    assert isinstance(cli.trainer, pl.Trainer)


def test_a_command_line_without_a_model_is_that_of_its_trainers_family(pl: Any, tmp_path: Path) -> None:
    cli = BSOLightningCLI(
        args=[f"--model={__name__}.OfEither"],
        run=False,
        trainer_class=pl.Trainer,
        trainer_defaults={"default_root_dir": tmp_path, "accelerator": "cpu", **dict.fromkeys(QUIET, False)},
    )
    assert isinstance(cli.trainer, pl.Trainer)


def test_a_subclass_of_the_command_line_may_give_its_classes_itself(pl: Any, tmp_path: Path) -> None:
    class Own(BSOLightningCLI):
        def __init__(self, **options: Any) -> None:
            super().__init__(module_of(pl), **options)

    defaults = {"default_root_dir": tmp_path, "accelerator": "cpu", **dict.fromkeys(QUIET, False)}
    assert isinstance(Own(args=[], run=False, trainer_defaults=defaults).trainer, pl.Trainer)


def test_a_command_line_does_not_depend_on_the_one_before(tmp_path: Path) -> None:
    defaults = {"default_root_dir": tmp_path, "accelerator": "cpu", **dict.fromkeys(QUIET, False)}
    for family in FAMILIES[::-1]:
        BSOLightningCLI(module_of(import_module(family)), args=[], run=False, trainer_defaults=defaults)
    cli = BSOLightningCLI(args=[f"--model={__name__}.OfEither"], run=False, trainer_defaults=defaults)
    assert isinstance(cli.trainer, import_module(FAMILIES[0]).Trainer)


def test_the_command_line_shows_the_parameters_of_lightnings() -> None:
    assert {"model_class", "trainer_class"} < set(signature(BSOLightningCLI).parameters)


class OfEither(*(import_module(family).LightningModule for family in FAMILIES)):  # type: ignore[misc]
    """A module that any Trainer takes."""


def run(code: str, folder: Path) -> None:
    """Run Python code in a new process, which has not imported Lightning."""
    process = launch(code, folder, TORCH_IMPORTS)
    assert process.exit_status == 0, process.errors


@pytest.mark.parametrize(("used", "other"), [FAMILIES, FAMILIES[::-1]])
def test_a_program_of_one_family_does_not_import_the_other(used: str, other: str, tmp_path: Path) -> None:
    run(
        f"import {used} as pl, sys; from lightning_bso import BSOLightningCLI, ZeusBSOCallback\n"
        f"assert isinstance(ZeusBSOCallback(), pl.Callback) and {other!r} not in sys.modules",
        tmp_path,
    )


def test_a_program_may_import_the_callback_before_lightning(tmp_path: Path) -> None:
    run(
        "from lightning_bso import ZeusBSOCallback\n"
        + "".join(f"import {family}; assert issubclass(ZeusBSOCallback, {family}.Callback)\n" for family in FAMILIES),
        tmp_path,
    )


@pytest.mark.parametrize(("broken", "used"), [FAMILIES, FAMILIES[::-1]])
def test_a_family_that_cannot_be_imported_does_not_keep_a_program_from_the_other(
    broken: str, used: str, tmp_path: Path
) -> None:
    folder = tmp_path / broken.replace(".", "/")
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("raise AttributeError('an old release')")
    if broken == "lightning.pytorch":
        (tmp_path / "lightning" / "__init__.py").touch()
    run(
        "from lightning_bso import ZeusBSOCallback\n"
        f"import {used} as pl; assert isinstance(ZeusBSOCallback(), pl.Callback)",
        tmp_path,
    )


def test_an_old_family_that_another_library_imports_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "pytorch_lightning").mkdir()
    (tmp_path / "pytorch_lightning" / "__init__.py").touch()
    run(
        "import lightning.pytorch as pl, pytorch_lightning\n"
        "from lightning_bso import ZeusBSOCallback\n"
        "assert isinstance(ZeusBSOCallback(), pl.Callback)",
        tmp_path,
    )


def test_a_probe_prints_no_messages_of_lightning_also_where_both_families_are_imported(tmp_path: Path) -> None:
    run(
        "import logging, lightning_utilities.core.rank_zero as shared\n"
        "import lightning.pytorch as pl; import pytorch_lightning\n"
        "from lightning_bso.lightning.probing import _lightning_silenced\n"
        "with _lightning_silenced(): silent = not shared.log.isEnabledFor(logging.INFO)\n"
        "assert silent and shared.log.isEnabledFor(logging.INFO)",
        tmp_path,
    )
