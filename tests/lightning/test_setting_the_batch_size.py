"""The server's batch size reaches the training data, wherever the user's code keeps it."""

from typing import Any

import pytest
import torch

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
)
from tests.servers import WaitressServer

# These fits end after one epoch, below the job's ten, which is warned of.
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


def test_the_attribute_may_have_another_name(server: WaitressServer) -> None:
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


def test_the_next_run_has_the_next_batch_size(server: WaitressServer) -> None:
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
