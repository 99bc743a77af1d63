"""How the server's verdict ends a fit, and what happens when a fit ends before a verdict."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
from lightning.pytorch.callbacks import GradientAccumulationScheduler, ModelCheckpoint
from packaging.version import Version

from lightning_bso import BsoClient, ZeusBSOCallback, ZeusBSOTrainFailError
from tests.client.jobs import ScriptedMonitor, job, only_trial
from tests.client.scripted import Reply, ScriptedServer, handed_on, in_turn
from tests.lightning.trainings import Module, fit, reported_epochs, trainer
from tests.servers import Server


class Witness(pl.Callback):
    """Records which hooks run at the end of the fit."""

    def __init__(self) -> None:
        self.hooks: list[str] = []

    def on_train_end(self, *_: Any) -> None:
        self.hooks.append("train end")

    def on_fit_end(self, *_: Any) -> None:
        self.hooks.append("fit end")

    def teardown(self, *_: Any, **__: Any) -> None:
        self.hooks.append("teardown")

    def on_exception(self, *_: Any) -> None:
        self.hooks.append("exception")


def test_a_run_that_converges_ends_the_fit_in_good_order(
    callback: ZeusBSOCallback, client: BsoClient, tmp_path: Path
) -> None:
    witness, checkpoint = Witness(), ModelCheckpoint(tmp_path, monitor="val_acc", mode="max")
    running = trainer(callback, witness, checkpoint, enable_checkpointing=True)
    running.fit(Module([0.2, 0.7, 1.0]))
    assert running.state.finished
    assert running.should_stop
    assert running.current_epoch == 3
    assert witness.hooks == ["train end", "fit end", "teardown"]
    assert Path(checkpoint.best_model_path).is_file()
    assert float(checkpoint.best_model_score or 0) == 1.0
    assert callback.result is not None
    assert callback.result.converged
    assert callback.result.reason == "converged"
    stored = only_trial(client, callback.job.job_id_prefix)
    windows = 5  # one for each of 3 reports, and one for each of 2 checkpoints between them
    assert (stored.status, stored.converged, stored.current_epoch, stored.energy) == (
        "Succeeded",
        True,
        3,
        windows * 10,
    )


def test_a_run_that_has_not_converged_in_max_epochs_raises_out_of_fit(server: Server, client: BsoClient) -> None:
    fields = job(max_epochs=2)
    callback, witness = ZeusBSOCallback(server.url, fields, energy_monitor=ScriptedMonitor()), Witness()
    with pytest.raises(ZeusBSOTrainFailError, match=r"batch size 16 .*within 2 epochs.*launch the training again"):
        trainer(callback, witness, max_epochs=2).fit(Module())
    assert witness.hooks == ["exception"]
    stored = only_trial(client, fields["job_id_prefix"])
    assert (stored.status, stored.converged, stored.current_epoch) == ("Succeeded", False, 2)
    assert callback.result is not None
    assert callback.result.reason == "max_epochs"


def test_a_run_that_costs_too_much_raises_out_of_fit(server: Server, client: BsoClient) -> None:
    fields = job()
    fit(ZeusBSOCallback(server.url, fields, energy_monitor=ScriptedMonitor([10.0])), Module([1.0]))
    expensive = ZeusBSOCallback(server.url, fields, energy_monitor=ScriptedMonitor([15.0, 15.0]))
    module = Module([0.5, 1.0])
    with pytest.raises(ZeusBSOTrainFailError, match=r"cost 30\.0 J exceeds 20\.0 J"):
        fit(expensive, module)
    assert expensive.result is not None
    assert (expensive.result.reason, expensive.result.cost) == ("cost_bound", 30.0)


@pytest.mark.parametrize("minimum", [{"min_epochs": 3}, {"min_steps": 12}])
def test_a_fit_that_must_go_on_after_convergence_goes_on_unreported(
    minimum: dict[str, int], callback: ZeusBSOCallback, server: Server, client: BsoClient
) -> None:
    running = fit(callback, Module([1.0, 0.5, 0.5, 0.5]), **minimum)
    assert running.current_epoch == 3
    assert reported_epochs(server, callback.job.job_id_prefix) == [1]
    assert only_trial(client, callback.job.job_id_prefix).converged


def test_a_fit_that_ends_before_a_verdict_says_so_at_its_beginning_and_gives_the_trial_back(
    callback: ZeusBSOCallback, client: BsoClient
) -> None:
    with pytest.warns(UserWarning) as warnings:
        running = fit(callback, Module(), max_epochs=2)
    assert running.state.finished
    messages = [str(warning.message) for warning in warnings]
    assert any("Trainer(max_epochs=2) ends before the job's max_epochs=10" in message for message in messages)
    assert any("before the optimizer had a verdict on trial 1" in message for message in messages)
    stored = only_trial(client, callback.job.job_id_prefix)
    assert (stored.status, stored.converged) == ("Failed", None)
    assert stored.outcome == "fit ended after 2 epochs and 8 batches without a verdict"


@pytest.mark.parametrize("interval", [timedelta(hours=1), "00:01:00:00"])
def test_validations_may_be_due_after_a_time(callback: ZeusBSOCallback, client: BsoClient, interval: Any) -> None:
    if Version(pl.__version__) < Version("2.6"):
        return  # it knows no such interval
    with pytest.warns(UserWarning, match="ended before the optimizer had a verdict"):
        fit(callback, Module(), max_epochs=1, val_check_interval=interval)
    assert only_trial(client, callback.job.job_id_prefix).outcome_code == "left"


@pytest.mark.parametrize(
    "accumulating", [{"callbacks": [GradientAccumulationScheduler({0: 4})]}, {"accumulate": "auto"}, {"manual": True}]
)
def test_max_steps_that_take_several_batches_each_leave_room_for_validations(
    server: Server, accumulating: dict[str, Any]
) -> None:
    class Manual(Module):
        def __init__(self) -> None:
            super().__init__([0.5, 1.0])
            self.automatic_optimization = "manual" not in accumulating

        def training_step(self, batch: Any, index: int) -> Any:
            loss = super().training_step(batch, index)
            if not self.automatic_optimization and index % 4 == 3:
                self.optimizers().step()  # type: ignore[union-attr]
            return loss

    split = {"max_device_batch_size": 4, "accumulate": "auto"} if "accumulate" in accumulating else {}
    callback = ZeusBSOCallback(server.url, job(), energy_monitor=ScriptedMonitor(), **split)
    running = trainer(
        callback,
        *accumulating.get("callbacks", ()),
        max_epochs=-1,
        max_steps=4,
        val_check_interval=8,
        check_val_every_n_epoch=None,
    )
    running.fit(Manual())
    assert callback.result is not None
    assert callback.result.converged


def test_a_fit_whose_max_steps_end_it_before_the_last_epoch_says_so_at_its_beginning(callback: ZeusBSOCallback) -> None:
    with pytest.warns(
        UserWarning, match=r"max_steps=6\) ends this fit after 1\.5 epochs, before the job's max_epochs=10"
    ):
        fit(callback, Module(), max_epochs=-1, max_steps=6)


def test_a_fit_that_ends_by_max_steps_gives_the_trial_back(callback: ZeusBSOCallback, client: BsoClient) -> None:
    with pytest.warns(UserWarning, match="max_steps"):
        fit(callback, Module(), max_steps=2)
    stored = only_trial(client, callback.job.job_id_prefix)
    assert stored.status == "Failed"
    assert "2 batches without a verdict" in (stored.outcome or "")


@pytest.mark.parametrize("last_metric", [1.0, 0.5])
def test_a_verdict_on_a_report_that_was_resent_at_the_end_counts(
    server: Server, client: BsoClient, scripted: ScriptedServer, last_metric: float
) -> None:
    class Down(Module):
        def on_validation_epoch_start(self) -> None:
            if not self.trainer.sanity_checking:
                scripted.script = in_turn(Reply(503))

        def on_train_end(self) -> None:
            scripted.script = handed_on(server.url)

    scripted.script = handed_on(server.url)
    fields = job(max_epochs=2)
    callback = ZeusBSOCallback(scripted.url, fields, energy_monitor=ScriptedMonitor())
    module = Down([0.5, last_metric])
    if last_metric == 1.0:
        fit(callback, module, max_epochs=2)
    else:
        with pytest.raises(ZeusBSOTrainFailError):
            fit(callback, module, max_epochs=2)
    stored = only_trial(client, fields["job_id_prefix"])
    assert (stored.converged, stored.current_epoch) == (last_metric == 1.0, 2)


def test_another_fit_with_the_same_callback_is_another_trial(callback: ZeusBSOCallback) -> None:
    fit(callback, Module([1.0]))
    first = (callback.trial_number, callback.batch_size, callback.result)
    fit(callback, Module([0.5, 1.0]))
    assert (callback.trial_number, callback.batch_size) == (2, 8)
    assert first[:2] == (1, 16)
    assert callback.result is not first[2]
