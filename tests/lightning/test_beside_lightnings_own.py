"""The callback together with Lightning's own callbacks and with options of the Trainer."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
from lightning.pytorch.callbacks import EarlyStopping, LearningRateMonitor, ModelCheckpoint, Timer
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader

from lightning_bso import BsoClient, ZeusBSOCallback
from tests.client.jobs import ScriptedMonitor, job, only_trial
from tests.lightning.trainings import FIRST_SIZE, ROWS, Module, fit, reported_epochs, rows, trainer
from tests.servers import Server


def test_early_stopping_that_waits_long_enough_leaves_the_verdict_to_the_server(
    callback: ZeusBSOCallback, client: BsoClient
) -> None:
    patient = EarlyStopping("val_acc", mode="max", patience=3)
    trainer(patient, callback).fit(Module([0.5, 0.5, 0.5, 1.0]))
    assert only_trial(client, callback.job.job_id_prefix).converged


@pytest.mark.parametrize("first", [True, False])
def test_early_stopping_that_comes_first_ends_the_run_without_a_verdict(
    callback: ZeusBSOCallback, client: BsoClient, server: Server, first: bool
) -> None:
    impatient = EarlyStopping("val_acc", mode="max", patience=1)
    both = [impatient, callback] if first else [callback, impatient]
    with pytest.warns(UserWarning, match="no other callback stops the fit earlier"):
        trainer(*both).fit(Module())
    assert reported_epochs(server, callback.job.job_id_prefix) == [1, 2]
    assert (
        only_trial(client, callback.job.job_id_prefix).outcome
        == "fit ended after 2 epochs and 8 batches without a verdict"
    )


def test_a_time_limit_ends_the_run_without_a_verdict(callback: ZeusBSOCallback, client: BsoClient) -> None:
    with pytest.warns(UserWarning, match="before the optimizer had a verdict"):
        trainer(callback, Timer(duration={"microseconds": 1})).fit(Module())
    assert only_trial(client, callback.job.job_id_prefix).status == "Failed"


def test_checkpoints_of_the_best_and_the_last_epochs_are_kept(callback: ZeusBSOCallback, tmp_path: Path) -> None:
    checkpoints = ModelCheckpoint(tmp_path, "{epoch}", monitor="val_acc", mode="max", save_top_k=1, save_last=True)
    trainer(checkpoints, callback, enable_checkpointing=True).fit(Module([0.9, 0.2, 1.0]))
    assert Path(checkpoints.best_model_path).name == "epoch=2.ckpt"
    assert Path(checkpoints.last_model_path).is_file()


def test_callbacks_that_log_and_a_logger_go_on_as_ever(callback: ZeusBSOCallback, tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path)
    trainer(callback, LearningRateMonitor(), logger=logger, log_every_n_steps=1).fit(Module([1.0]))
    assert "lr-SGD" in (Path(logger.log_dir) / "metrics.csv").read_text().splitlines()[0]


def test_overfitting_a_few_batches_takes_them_at_the_batch_size_given(
    callback: ZeusBSOCallback, server: Server
) -> None:
    module = Module([0.5, 1.0])
    fit(callback, module, overfit_batches=2)
    assert module.sizes_seen == {FIRST_SIZE}
    assert module.rows_seen == list(range(2 * FIRST_SIZE)) * 2
    assert reported_epochs(server, callback.job.job_id_prefix) == [1, 2]


@pytest.mark.parametrize(
    "options", [{"limit_train_batches": 2}, {"limit_train_batches": 0.5}, {"limit_val_batches": 1}]
)
def test_epochs_are_counted_where_batches_are_limited(
    callback: ZeusBSOCallback, server: Server, options: dict[str, Any]
) -> None:
    fit(callback, Module([0.5, 1.0]), **options)
    assert reported_epochs(server, callback.job.job_id_prefix) == [1, 2]


def test_loaders_that_are_rebuilt_every_epoch_keep_the_batch_size(callback: ZeusBSOCallback) -> None:
    module = Module([0.5, 0.5, 1.0])
    fit(callback, module, reload_dataloaders_every_n_epochs=1)
    assert module.sizes_seen == {FIRST_SIZE}
    assert module.rows_seen == list(range(ROWS)) * 3


class TwoValidations(Module):
    """Validates on two loaders. Lightning then adds the loader's number to a metric's name."""

    def validation_step(self, *_: Any) -> None:
        self.log("val_acc", 1.0)

    def on_validation_epoch_end(self) -> None:
        """Do nothing: each step logs the metric."""

    def val_dataloader(self) -> Iterable[DataLoader[Any]]:  # type: ignore[override]  # Lightning takes several
        return [DataLoader(rows(), batch_size=ROWS)] * 2


def test_the_monitor_names_one_of_several_validation_loaders(server: Server, client: BsoClient) -> None:
    fields = job()
    named = ZeusBSOCallback(server.url, fields, "val_acc/dataloader_idx_1", energy_monitor=ScriptedMonitor())
    fit(named, TwoValidations())
    assert only_trial(client, fields["job_id_prefix"]).converged


def test_if_the_monitor_names_none_the_error_lists_the_names(callback: ZeusBSOCallback) -> None:
    with pytest.raises(Exception, match="Logged metrics: val_acc/dataloader_idx_0, val_acc/dataloader_idx_1"):
        fit(callback, TwoValidations())


def test_tests_and_predictions_after_the_fit_are_not_reported(callback: ZeusBSOCallback, server: Server) -> None:
    class WithTest(Module):
        def test_step(self, *_: Any) -> None:
            self.log("val_acc", 0.1)

        def test_dataloader(self) -> DataLoader[Any]:
            return self.val_dataloader()

    running = fit(callback, module := WithTest([1.0]))
    running.test(module, verbose=False)
    assert reported_epochs(server, callback.job.job_id_prefix) == [1]


def test_a_callback_that_breaks_ends_the_trial_with_its_error(callback: ZeusBSOCallback, client: BsoClient) -> None:
    class Broken(pl.Callback):
        def on_validation_end(self, running: pl.Trainer, _: pl.LightningModule) -> None:
            if not running.sanity_checking:
                raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        trainer(callback, Broken()).fit(Module())
    assert only_trial(client, callback.job.job_id_prefix).outcome == "OSError: no space left on device"
