"""Which validations are reported, with which epoch, metric and energy."""

import math
from collections.abc import Iterable
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lightning_bso import BsoClient, ZeusBSOCallback, ZeusBSOTrainFailError
from tests.client.jobs import ScriptedMonitor, job, number_of_trials, only_trial
from tests.client.scripted import Request, ScriptedServer, handed_on
from tests.lightning.trainings import Module, fit, reported_epochs, trainer
from tests.servers import Server


def failed_after(server: Server, epochs: int, monitor: ScriptedMonitor | None = None, **options: Any) -> str:
    """Fit to the job's last epoch without reaching the target, and return the job's prefix."""
    fields = job(max_epochs=epochs)
    callback = ZeusBSOCallback(server.url, fields, energy_monitor=monitor or ScriptedMonitor())
    with pytest.raises(ZeusBSOTrainFailError):
        fit(callback, Module(), max_epochs=epochs + 5, **options)
    return str(fields["job_id_prefix"])


def test_every_validation_is_reported_and_the_sanity_check_is_not(server: Server) -> None:
    assert reported_epochs(server, failed_after(server, 3)) == [1, 2, 3]


def test_several_validations_in_an_epoch_are_reported_with_the_epochs_completed(server: Server) -> None:
    assert reported_epochs(server, failed_after(server, 2, val_check_interval=0.5)) == [0, 1, 1, 2]


def test_epochs_without_a_validation_are_counted(server: Server) -> None:
    assert reported_epochs(server, failed_after(server, 4, check_val_every_n_epoch=2)) == [2, 4]


@pytest.mark.parametrize(
    ("epochs", "options", "reported"),
    [
        (2, {"val_check_interval": 0.75}, [0, 1, 2]),
        (2, {"val_check_interval": 3}, [0, 1, 2]),
        (3, {"check_val_every_n_epoch": 2}, [2, 3]),
    ],
    ids=["three quarters of an epoch", "3 of 4 batches", "every second epoch"],
)
def test_a_run_whose_last_epoch_ends_without_a_validation_has_failed_with_all_its_energy(
    server: Server, client: BsoClient, epochs: int, options: dict[str, Any], reported: list[int]
) -> None:
    fields = job(max_epochs=epochs)
    callback = ZeusBSOCallback(server.url, fields, energy_monitor=ScriptedMonitor([1.0, 2.0, 4.0]))
    with pytest.raises(ZeusBSOTrainFailError, match=f"within {epochs} epochs"):
        fit(callback, Module(), max_epochs=epochs, **options)
    assert reported_epochs(server, fields["job_id_prefix"]) == reported
    stored = only_trial(client, fields["job_id_prefix"])
    assert (stored.converged, stored.energy) == (False, float(2 ** len(reported) - 1))


def test_such_a_run_may_end_the_fit_without_an_error(server: Server) -> None:
    callback = ZeusBSOCallback(server.url, job(max_epochs=3), energy_monitor=ScriptedMonitor(), on_fail="stop")
    fit(callback, Module(), max_epochs=3, check_val_every_n_epoch=2)
    assert callback.result is not None and not callback.result.converged


def test_a_validation_on_its_own_is_not_reported(callback: ZeusBSOCallback, server: Server, client: BsoClient) -> None:
    trainer(callback).validate(Module([1.0]), verbose=False)
    assert number_of_trials(client, callback.job.job_id_prefix) == 0
    running = fit(callback, Module([1.0]))
    running.validate(Module([0.5]), verbose=False)
    assert reported_epochs(server, callback.job.job_id_prefix) == [1]


def test_energy_and_time_of_all_windows_are_summed(server: Server, client: BsoClient) -> None:
    prefix = failed_after(server, 3, ScriptedMonitor([1.0, 2.0, 4.0]))
    stored = only_trial(client, prefix)
    assert (stored.energy, stored.time, stored.current_epoch) == (7.0, 3.0, 3)


def test_only_training_and_validation_are_measured_and_no_waiting_for_the_server(
    server: Server, scripted: ScriptedServer
) -> None:
    events: list[str] = []

    def note(request: Request) -> None:
        events.append(request.path)

    class Noting(pl.Callback):
        def on_fit_start(self, *_: Any) -> None:
            events.append("set-up")

        def on_sanity_check_end(self, *_: Any) -> None:
            events.append("sanity check")

        def on_train_epoch_start(self, *_: Any) -> None:
            events.append("epoch")

    scripted.script = handed_on(server.url, note)
    monitor = ScriptedMonitor(events=events)
    callback = ZeusBSOCallback(scripted.url, job(), energy_monitor=monitor)
    trainer(callback, Noting()).fit(Module([0.5, 1.0]))
    asking = ["/jobs", "/trials", "set-up", "sanity check"]
    epoch = ["open", "epoch", "close", "/report"]
    assert events == [*asking, *epoch, *epoch, f"/jobs/{callback.job_id}"]


def test_a_metric_of_another_name(server: Server) -> None:
    class Loss(Module):
        def on_validation_epoch_end(self) -> None:
            self.log("val_loss", 0.25)

    fields = job(target_metric=0.3, higher_is_better_metric=False)
    callback = ZeusBSOCallback(server.url, fields, monitor="val_loss", energy_monitor=ScriptedMonitor())
    fit(callback, Loss())
    assert callback.result is not None
    assert callback.result.converged


def test_a_metric_that_is_not_logged_is_an_error_that_names_those_that_are(server: Server, client: BsoClient) -> None:
    fields = job()
    callback = ZeusBSOCallback(server.url, fields, monitor="val_f1", energy_monitor=ScriptedMonitor())
    with pytest.raises(MisconfigurationException, match=r"monitor='val_f1'.*Logged metrics: val_acc"):
        fit(callback, Module())
    stored = only_trial(client, fields["job_id_prefix"])
    assert stored.status == "Failed"
    assert "val_f1" in (stored.outcome or "")


class LoggedOnce(Module):
    """Logs its metric in the first validation only."""

    def on_validation_epoch_end(self) -> None:
        if self.trainer.current_epoch == 0:
            super().on_validation_epoch_end()


class LoggedInTraining(Module):
    """Logs the target under the metric's name in its training steps, and nothing in validations."""

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        self.log("val_acc", 1.0)
        return super().training_step(batch, index)

    def on_validation_epoch_end(self) -> None:
        """Log nothing."""


@pytest.mark.parametrize(("module", "reported"), [(LoggedOnce, [1]), (LoggedInTraining, [])])
def test_a_metric_that_a_validation_does_not_log_is_not_the_last_one_again(
    callback: ZeusBSOCallback, server: Server, module: type[Module], reported: list[int]
) -> None:
    with pytest.raises(MisconfigurationException, match="found no such metric after the validation"):
        fit(callback, module())
    assert reported_epochs(server, callback.job.job_id_prefix) == reported


def test_the_metric_of_one_of_several_validation_loaders(server: Server) -> None:
    class Two(Module):
        def validation_step(self, batch: Any, index: int, dataloader_idx: int = 0) -> None:
            self.log("val_acc", (0.5, 1.0)[dataloader_idx])

        def on_validation_epoch_end(self) -> None:
            """Do nothing: the steps log the metrics."""

        def val_dataloader(self) -> list[Any]:
            return [super().val_dataloader()] * 2

    for name, converged in (("val_acc/dataloader_idx_1", True), ("val_acc/dataloader_idx_0", False)):
        options = {"energy_monitor": ScriptedMonitor(), "on_fail": "stop"}
        callback = ZeusBSOCallback(server.url, job(max_epochs=2), monitor=name, **options)
        fit(callback, Two())
        assert callback.result is not None
        assert callback.result.converged is converged


@pytest.mark.parametrize("metrics", [[math.nan], [0.5, math.inf]])
def test_a_metric_that_is_not_finite_fails_the_run(
    callback: ZeusBSOCallback, client: BsoClient, metrics: Iterable[float]
) -> None:
    with pytest.raises(ZeusBSOTrainFailError, match="diverged"):
        fit(callback, Module(metrics))
    stored = only_trial(client, callback.job.job_id_prefix)
    assert (stored.status, stored.converged) == ("Succeeded", False)
