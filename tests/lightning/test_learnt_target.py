"""With `target_metric="auto"`, the first fits end by their own rules, and later ones at the target learnt from them."""

import logging
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.callbacks import EarlyStopping

from lightning_bso import BatchSizeOptimizer, BsoClient, JobSpec, ZeusBSOCallback, ZeusBSOTrainFailError
from lightning_bso.console.cli import main
from tests.client.jobs import ScriptedMonitor, job, only_trial
from tests.lightning.ranks import RankModule, run_ranks
from tests.lightning.trainings import Module, fit, trainer
from tests.servers import Server

RISING = [0.2, 0.5, 0.8, 0.7]


@pytest.fixture
def fields() -> dict[str, Any]:
    """A job that learns its target from two runs of four epochs."""
    return job(target_metric="auto", calibration_runs=2, max_epochs=4)


def launch(server: Server, fields: dict[str, Any], metrics: list[float], **options: Any) -> Any:
    """Launch a fit of four epochs. Returns the callback and the trainer."""
    callback = ZeusBSOCallback(server.url, fields, energy_monitor=ScriptedMonitor(), **options)
    return callback, fit(callback, Module(metrics), max_epochs=4)


def test_auto_is_no_target_on_the_wire() -> None:
    assert JobSpec(**job(target_metric="auto")).model_dump()["target_metric"] is None


@pytest.mark.parametrize("stop", [True, False])
def test_the_first_fits_take_the_default_and_all_their_epochs(
    server: Server, client: BsoClient, fields: dict[str, Any], stop: bool
) -> None:
    for _ in range(2):
        callback, running = launch(server, fields, RISING, stop=stop)
        assert (callback.batch_size, running.current_epoch) == (16, 4)
        assert callback.result.converged
    learnt = client.describe(callback.job_id).learnt_target
    assert learnt is not None
    assert (learnt.target_metric, learnt.trials) == (pytest.approx(0.8), [1, 2])
    callback, running = launch(server, fields, [0.3, 0.85, 0.9, 0.9], stop=stop)
    assert (callback.batch_size, callback.result.converged) == (8, True)
    assert running.current_epoch == (2 if stop else 4)
    trials = client.list_trials(callback.job_id).trials
    used = [(trial.current_epoch, trial.energy, trial.energy_after) for trial in trials[:2]]
    assert used == [(3, 30.0, 10.0 if stop else 20.0)] * 2  # with stop=False, the end of the fit is measured too
    assert trials[2].energy == 20.0


def test_the_job_is_shown_with_where_its_target_comes_from(
    server: Server, fields: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    for line in ("not known yet: it is learnt from 2 runs", "at least 0.8 within 4 epochs, learnt from trials 1, 2"):
        callback, _ = launch(server, fields, RISING)
        capsys.readouterr()
        assert main(["show", callback.job_id, "--server-url", server.url]) == 0
        assert line in capsys.readouterr().out


def test_a_fit_that_another_callback_ends_calibrates_too(
    server: Server, client: BsoClient, fields: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    stopping = EarlyStopping("val_acc", mode="max", patience=1)
    callback = ZeusBSOCallback(server.url, fields | {"max_epochs": 10}, energy_monitor=ScriptedMonitor())
    with caplog.at_level(logging.INFO):
        running = trainer(callback, stopping, max_epochs=10)
        running.fit(Module([0.5, 0.8, 0.7, 1.0]))
    assert running.current_epoch == 3
    assert callback.result is not None
    assert (callback.result.converged, callback.result.reason) == (True, "calibrated")
    assert "1 is still to end" in callback.result.message
    assert not [line for line in caplog.messages if "learned nothing" in line]
    (trial,) = client.list_trials(str(callback.job_id)).trials
    assert (trial.status, trial.energy) == ("Calibrated", 30.0)


def test_a_fit_that_ends_below_the_target_by_its_own_rules_has_failed(
    server: Server, client: BsoClient, fields: dict[str, Any]
) -> None:
    for _ in range(2):
        launch(server, fields, RISING)
    stopping = EarlyStopping("val_acc", mode="max", patience=1)
    callback = ZeusBSOCallback(server.url, fields, energy_monitor=ScriptedMonitor())
    with pytest.raises(
        ZeusBSOTrainFailError, match=r"fit ended after 2 epochs.*has not reached the learnt target 0\.8"
    ):
        trainer(callback, stopping, max_epochs=4).fit(Module([0.5, 0.4, 0.9]))
    trial = client.list_trials(str(callback.job_id)).trials[-1]
    assert (trial.converged, trial.outcome_code) == (False, "training_over")


def test_a_fit_that_breaks_calibrates_nothing(server: Server, client: BsoClient, fields: dict[str, Any]) -> None:
    class Breaking(Module):
        def on_train_epoch_start(self) -> None:
            if self.trainer.current_epoch == 2:
                raise RuntimeError("the disk is full")

    callback = ZeusBSOCallback(server.url, fields, energy_monitor=ScriptedMonitor())
    with pytest.raises(RuntimeError, match="the disk is full"):
        fit(callback, Breaking(RISING))
    trial = only_trial(client, fields["job_id_prefix"])
    assert (trial.status, trial.outcome_code) == ("Failed", "ended")


def test_a_loop_of_ones_own_calibrates(server: Server, client: BsoClient, fields: dict[str, Any]) -> None:
    for _ in range(2):
        with BatchSizeOptimizer(ScriptedMonitor(), server.url, fields) as bso:
            bso.get_batch_size()
            bso.on_train_begin()
            for metric in RISING:
                assert not bso.training_finished
                bso.on_evaluate(metric)
            assert bso.training_finished
    (listing,) = client.list_jobs(contains=fields["job_id_prefix"]).jobs
    assert client.describe(listing.job_id).learnt_target is not None


def test_all_ranks_have_the_verdict_of_a_calibration_run(
    server: Server, fields: dict[str, Any], tmp_path: Path
) -> None:
    def training(_: int) -> dict[str, Any]:
        callback = ZeusBSOCallback(server.url, fields | {"max_epochs": 10}, energy_monitor=ScriptedMonitor())
        running = trainer(callback, devices=2, strategy="ddp", max_epochs=3)
        running.fit(RankModule(RISING))
        assert callback.result is not None
        return {"epochs": running.current_epoch, "reason": callback.result.reason}

    ranks = run_ranks(tmp_path, training)
    assert [rank.result for rank in ranks] == [{"epochs": 3, "reason": "calibrated"}] * 2, ranks[0].stderr
