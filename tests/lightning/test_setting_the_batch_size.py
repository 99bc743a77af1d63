"""The server's batch size reaches the training data, wherever the user's code holds the batch size."""

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.utilities import CombinedLoader
from torch.utils.data import DataLoader

from lightning_bso import ZeusBSOCallback
from tests.client.jobs import ScriptedMonitor, job
from tests.databases import free_port
from tests.lightning.trainings import (
    FIRST_SIZE,
    ROWS,
    Bare,
    Data,
    DataWithHparams,
    Module,
    ModuleWithHparams,
    fit,
    rows,
)
from tests.servers import Server

# These fits end after one epoch. The job has ten, so the callback warns.
pytestmark = pytest.mark.filterwarnings("ignore:.*max_epochs")


def test_it_reaches_an_attribute_of_the_module(callback: ZeusBSOCallback) -> None:
    module = Module()
    fit(callback, module, max_epochs=1)
    assert callback.batch_size == FIRST_SIZE
    assert (module.batch_size, module.sizes_seen) == (FIRST_SIZE, {FIRST_SIZE})


def test_it_reaches_the_hyperparameters_of_the_module(callback: ZeusBSOCallback) -> None:
    module = ModuleWithHparams()
    fit(callback, module, max_epochs=1)
    assert (module.hparams.batch_size, module.sizes_seen) == (FIRST_SIZE, {FIRST_SIZE})


def test_it_reaches_an_attribute_of_the_datamodule(callback: ZeusBSOCallback) -> None:
    module, data = Bare(), Data()
    fit(callback, module, data, max_epochs=1)
    assert (data.batch_size, module.sizes_seen) == (FIRST_SIZE, {FIRST_SIZE})


def test_it_reaches_the_hyperparameters_of_the_datamodule(callback: ZeusBSOCallback) -> None:
    module, data = Bare(), DataWithHparams()
    fit(callback, module, data, max_epochs=1)
    assert (data.hparams.batch_size, module.sizes_seen) == (FIRST_SIZE, {FIRST_SIZE})


def test_it_reaches_module_and_datamodule_alike(callback: ZeusBSOCallback) -> None:
    module, data = Module(), Data()
    fit(callback, module, data, max_epochs=1)
    assert (module.batch_size, data.batch_size, module.sizes_seen) == (FIRST_SIZE, FIRST_SIZE, {FIRST_SIZE})


def test_the_attribute_may_have_another_name(server: Server) -> None:
    class Named(Data):
        def __init__(self) -> None:
            super().__init__()
            self.train_batch_size = 2

        def train_dataloader(self) -> Any:
            self.batch_size = self.train_batch_size
            return super().train_dataloader()

    module = Bare()
    callback = ZeusBSOCallback(server.url, job(), energy_monitor=ScriptedMonitor(), batch_arg_name="train_batch_size")
    fit(callback, module, Named(), max_epochs=1)
    assert module.sizes_seen == {FIRST_SIZE}


def test_a_name_with_dots_leads_into_attributes_and_mappings(server: Server) -> None:
    class Configured(Bare):
        def __init__(self) -> None:
            super().__init__()
            self.config = SimpleNamespace(data={"train": {"size": 2}})

        def train_dataloader(self) -> Any:
            return DataLoader(rows(), batch_size=self.config.data["train"]["size"])

    module = Configured()
    callback = ZeusBSOCallback(
        server.url, job(), energy_monitor=ScriptedMonitor(), batch_arg_name="config.data.train.size"
    )
    fit(callback, module, max_epochs=1)
    assert module.sizes_seen == {FIRST_SIZE}


def test_a_name_with_dots_leads_into_hyperparameters(server: Server) -> None:
    class Nested(Bare):
        def __init__(self, data: dict[str, int]) -> None:
            super().__init__()
            self.save_hyperparameters()

        def train_dataloader(self) -> Any:
            return DataLoader(rows(), batch_size=self.hparams.data["size"])

    module = Nested({"size": 2})
    callback = ZeusBSOCallback(server.url, job(), energy_monitor=ScriptedMonitor(), batch_arg_name="data.size")
    fit(callback, module, max_epochs=1)
    assert module.sizes_seen == {FIRST_SIZE}
    assert module.hparams_initial.data == {"size": FIRST_SIZE}


def test_of_several_names_all_are_set(server: Server) -> None:
    class Apart(Bare):
        def __init__(self) -> None:
            super().__init__()
            self.train_size = self.val_size = 2

        def train_dataloader(self) -> Any:
            return DataLoader(rows(), batch_size=self.train_size)

        def val_dataloader(self) -> Any:
            return DataLoader(rows(), batch_size=self.val_size)

    module = Apart()
    callback = ZeusBSOCallback(
        server.url, job(), energy_monitor=ScriptedMonitor(), batch_arg_name=["train_size", "val_size"]
    )
    running = fit(callback, module, max_epochs=1)
    assert (module.sizes_seen, running.val_dataloaders.batch_size) == ({FIRST_SIZE}, FIRST_SIZE)


def test_a_property_that_shows_the_hyperparameter_may_be_read_only(callback: ZeusBSOCallback) -> None:
    class Shown(ModuleWithHparams):
        @property
        def batch_size(self) -> int:
            return int(self.hparams.batch_size)

    module = Shown()
    fit(callback, module, max_epochs=1)
    assert (module.batch_size, module.sizes_seen) == (FIRST_SIZE, {FIRST_SIZE})


class Several(Bare):
    """Trains on the batches of several loaders."""

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        batches = list(batch.values()) if isinstance(batch, dict) else batch
        losses = [super(Several, self).training_step(part, index) for part in batches]
        return sum(losses[1:], losses[0])


def two_loaders() -> dict[str, DataLoader[Any]]:
    return {"a": DataLoader(rows(), batch_size=2), "b": DataLoader(rows(), batch_size=4, shuffle=True)}


@pytest.mark.parametrize(
    "make_loaders",
    [
        two_loaders,
        lambda: list(two_loaders().values()),
        lambda: CombinedLoader(two_loaders(), "max_size_cycle"),
    ],
    ids=["dict", "list", "CombinedLoader"],
)
def test_it_reaches_all_of_several_loaders_given_to_fit(
    callback: ZeusBSOCallback, make_loaders: Callable[[], Any]
) -> None:
    module, loaders = Several(), make_loaders()
    running = fit(callback, module, loaders, max_epochs=1)
    assert (module.sizes_seen, running.num_training_batches) == ({FIRST_SIZE}, ROWS // FIRST_SIZE)
    originals = CombinedLoader(loaders).flattened if not isinstance(loaders, CombinedLoader) else loaders.flattened
    assert [loader.batch_size for loader in originals] == [2, 4]  # the user's loaders are unchanged


def test_a_subclass_says_how_to_set_it(server: Server) -> None:
    class Pipeline:
        size = 2

        def __iter__(self) -> Iterator[list[torch.Tensor]]:
            return (list(batch) for batch in DataLoader(rows(), batch_size=self.size))

        def __len__(self) -> int:
            return ROWS // self.size

    class Fed(Bare):
        pipeline = Pipeline()

        def train_dataloader(self) -> Any:
            return self.pipeline

    class Feeding(ZeusBSOCallback):
        def batch_size_setter(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> Callable[[int], None]:
            return lambda batch_size: setattr(pl_module.pipeline, "size", batch_size)

    module = Fed()
    with pytest.warns(UserWarning, match="cannot see the batch size"):
        fit(Feeding(server.url, job(), energy_monitor=ScriptedMonitor()), module, max_epochs=1)
    assert module.sizes_seen == {FIRST_SIZE}


def test_validation_keeps_its_own_batch_size(callback: ZeusBSOCallback) -> None:
    running = fit(callback, Module(), max_epochs=1)
    assert running.val_dataloaders.batch_size == ROWS


def test_a_scheduler_made_for_the_number_of_steps_sees_it(callback: ZeusBSOCallback) -> None:
    class OneCycle(Module):
        def configure_optimizers(self) -> Any:
            self.steps = int(self.trainer.estimated_stepping_batches)
            optimizer = super().configure_optimizers()
            scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=self.steps)
            return [optimizer], [{"scheduler": scheduler, "interval": "step"}]

    module = OneCycle()
    running = fit(callback, module, max_epochs=2)
    assert module.sizes_seen == {FIRST_SIZE}
    assert module.steps == running.global_step == 2 * ROWS // FIRST_SIZE


def test_the_next_run_has_the_next_batch_size(server: Server) -> None:
    fields = job()
    sizes = []
    for metrics in ([1.0], [1.0], [1.0]):
        callback = ZeusBSOCallback(server.url, fields, energy_monitor=ScriptedMonitor())
        module = Module(metrics)
        fit(callback, module)
        assert module.sizes_seen == {callback.batch_size}
        sizes.append(callback.batch_size)
    assert sizes == [16, 8, 32]


def test_a_training_without_a_reachable_server_may_fall_back_to_the_default() -> None:
    free_url = f"http://127.0.0.1:{free_port()}"
    callback = ZeusBSOCallback(free_url, job(), energy_monitor=ScriptedMonitor(), fallback_to_default=True)
    module = Module()
    running = fit(callback, module, max_epochs=1)
    assert running.state.finished
    assert (module.sizes_seen, callback.batch_size) == ({FIRST_SIZE}, FIRST_SIZE)
    assert (callback.trial_number, callback.result) == (None, None)


def test_the_callback_knows_its_trial(callback: ZeusBSOCallback) -> None:
    assert (callback.trial_number, callback.job_id, callback.batch_size) == (None, None, None)
    fit(callback, Module([1.0]))
    assert (callback.trial_number, callback.batch_size) == (1, FIRST_SIZE)
    assert str(callback.job_id).startswith(callback.job.job_id_prefix)
