"""With `stop=False`, the fit ends by its own rules. The run is measured up to its verdict, and apart after it."""

import csv
import logging
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

from lightning_bso import BsoClient, ZeusBSOCallback
from tests.client.jobs import ScriptedMonitor, job, only_trial
from tests.lightning.ranks import RankModule, run_ranks
from tests.lightning.trainings import Module, fit, trainer
from tests.servers import Server


def going_on(server: Server, **options: Any) -> ZeusBSOCallback:
    """Return a callback that ends no fit. Every window of its monitor takes 10 J and 1 s."""
    return ZeusBSOCallback(server.url, job(), energy_monitor=ScriptedMonitor(), stop=False, **options)


def test_a_fit_goes_on_after_its_run_has_converged(server: Server, client: BsoClient) -> None:
    callback = going_on(server)
    running = fit(callback, Module([0.5, 1.0, 0.7, 1.5, 0.9]), max_epochs=5)
    trial = only_trial(client, callback.job.job_id_prefix)
    assert running.current_epoch == 5
    assert callback.result is not None
    assert (callback.result.converged, trial.converged, trial.current_epoch) == (True, True, 2)
    assert (trial.energy, trial.time) == (20.0, 2.0)
    assert (trial.energy_after, trial.time_after) == (40.0, 4.0)  # three epochs, and the rest of the fit
    assert trial.best_metric == 1.5


def test_a_failed_run_ends_no_fit(server: Server, client: BsoClient, caplog: pytest.LogCaptureFixture) -> None:
    callback = ZeusBSOCallback(server.url, job(max_epochs=2), energy_monitor=ScriptedMonitor(), stop=False)
    with caplog.at_level(logging.INFO):
        running = fit(callback, Module([0.1, 0.2, 0.3, 1.0]), max_epochs=4)
    trial = only_trial(client, callback.job.job_id_prefix)
    assert running.current_epoch == 4
    assert (trial.converged, trial.outcome_code, trial.energy, trial.best_metric) == (False, "max_epochs", 20.0, 1.0)
    assert any("has not reached" in line and "The fit goes on" in line for line in caplog.messages)


def test_a_fit_that_ends_by_another_callback_before_the_target_has_no_verdict(
    server: Server, client: BsoClient
) -> None:
    callback = going_on(server)
    patience = EarlyStopping("val_acc", patience=2, mode="max")
    with pytest.warns(UserWarning, match="fit ended before the optimizer had a verdict"):
        trainer(callback, patience).fit(Module())
    assert only_trial(client, callback.job.job_id_prefix).converged is None


def test_the_verdict_is_in_every_logger(server: Server, tmp_path: Path) -> None:
    fit(going_on(server), Module([0.5, 1.0, 1.0]), max_epochs=3, logger=CSVLogger(tmp_path, name="", version=""))
    with (tmp_path / "metrics.csv").open() as table:
        verdicts = [row["zeus_bso/converged"] for row in csv.DictReader(table)]
    assert list(filter(None, verdicts)) == ["1.0"]


def test_a_fit_that_is_resumed_after_its_verdict_goes_on(server: Server, client: BsoClient, tmp_path: Path) -> None:
    callback = going_on(server)
    saving = ModelCheckpoint(tmp_path, save_last=True, monitor=None)
    trainer(callback, saving, max_epochs=3, enable_checkpointing=True).fit(Module([0.5, 1.0, 1.0]))
    before = only_trial(client, callback.job.job_id_prefix)
    again = ZeusBSOCallback(server.url, callback.job, energy_monitor=ScriptedMonitor(), stop=False)
    module = Module([1.0, 2.0])
    trainer(again, max_epochs=5).fit(module, ckpt_path=tmp_path / "last.ckpt")
    trial = only_trial(client, callback.job.job_id_prefix)
    assert module.sizes_seen == {16}
    assert (trial.energy, trial.time) == (before.energy, before.time)
    assert trial.energy_after > before.energy_after
    assert trial.best_metric == 2.0


def test_the_server_may_be_away_at_the_target(server: Server, client: BsoClient) -> None:
    callback = going_on(server)

    class Away(Module):
        def on_train_epoch_start(self) -> None:
            if self.trainer.current_epoch == 1:
                server.kill()
            if self.trainer.current_epoch == 3:
                server.start()

    fit(callback, Away([0.5, 1.0, 0.9, 0.9, 0.9]), max_epochs=5)
    trial = only_trial(client, callback.job.job_id_prefix)
    assert (trial.converged, trial.current_epoch, trial.energy) == (True, 2, 20.0)
    assert trial.energy_after == 40.0


def test_the_ranks_of_a_fit_go_on_together(server: Server, client: BsoClient, tmp_path: Path) -> None:
    fields = job()

    def training(_rank: int) -> dict[str, Any]:
        callback = ZeusBSOCallback(server.url, fields, energy_monitor=ScriptedMonitor(), stop=False)
        running = trainer(callback, devices=2, strategy="ddp", max_epochs=4)
        running.fit(RankModule([0.5, 1.0, 1.0, 1.0]))
        assert callback.result is not None
        return {"epochs": running.current_epoch, "converged": callback.result.converged}

    ranks = run_ranks(tmp_path, training)
    assert [rank.result for rank in ranks] == [{"epochs": 4, "converged": True}] * 2, ranks[0].stderr
    trial = only_trial(client, fields["job_id_prefix"])
    assert (trial.current_epoch, trial.energy, trial.energy_after) == (2, 20.0, 20.0)
