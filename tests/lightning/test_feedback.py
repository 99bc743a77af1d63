"""The output of a run for users: in the loggers, in the progress bar, and in a closing line."""

import csv
import logging
import re
from pathlib import Path
from typing import Any, ClassVar

import lightning.pytorch as pl
import pytest
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_bso import ZeusBSOCallback
from tests.client.jobs import ScriptedMonitor, job
from tests.lightning.trainings import Module, ModuleWithHparams, fit, trainer
from tests.servers import Server


def test_every_logger_gets_what_the_run_costs(callback: ZeusBSOCallback, tmp_path: Path) -> None:
    loggers = [CSVLogger(tmp_path, name=name, version="run") for name in ("a", "b")]
    trainer(callback, logger=loggers, log_every_n_steps=1).fit(Module([0.5, 1.0]))
    for logger in loggers:
        with (Path(logger.log_dir) / "metrics.csv").open() as file:
            rows = [row for row in csv.DictReader(file) if row["zeus_bso/energy_j"]]
        assert [float(row["zeus_bso/energy_j"]) for row in rows] == [10.0, 20.0]
        assert [float(row["zeus_bso/cost_j"]) for row in rows] == [10.0, 20.0]
        assert [float(row["zeus_bso/time_s"]) for row in rows] == [1.0, 2.0]
        assert {(float(row["zeus_bso/batch_size"]), float(row["zeus_bso/trial"])) for row in rows} == {(16.0, 1.0)}


def test_tensorboard_shows_what_the_run_costs(callback: ZeusBSOCallback, tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path)
    trainer(callback, logger=logger).fit(Module([0.5, 1.0]))
    events = EventAccumulator(logger.log_dir).Reload()
    costs = events.Scalars("zeus_bso/cost_j")
    assert [(scalar.step, scalar.value) for scalar in costs] == [(3, 10.0), (7, 20.0)]  # the last step of each epoch


def test_any_logger_can_take_the_names_and_values(callback: ZeusBSOCallback) -> None:
    class Strict(Logger):
        """Accepts only what Lightning's strictest loggers accept: MLflow's names, and plain numbers."""

        name, version = "strict", 0
        logged: ClassVar[set[str]] = set()

        def log_hyperparams(self, *_: Any, **__: Any) -> None:
            """Ignore them."""

        def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
            assert type(step) is int
            for name, value in metrics.items():
                assert re.fullmatch(r"[\w/. -]+", name)
                assert type(value) in (int, float)
            self.logged.update(metrics)

    fit(callback, Module([1.0]), logger=Strict())
    assert {f"zeus_bso/{name}" for name in ("batch_size", "trial", "energy_j", "time_s", "cost_j")} <= Strict.logged


def test_the_logged_hyperparameters_have_the_batch_size_of_the_run(callback: ZeusBSOCallback, tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path, name=None, version="run")
    module = ModuleWithHparams()
    module._metrics = iter([1.0])
    fit(callback, module, logger=logger)
    assert "batch_size: 16" in (Path(logger.log_dir) / "hparams.yaml").read_text()


def test_the_progress_bar_shows_batch_size_trial_and_cost(callback: ZeusBSOCallback) -> None:
    class RecordingBar(TQDMProgressBar):
        metrics: dict[str, Any]

        def on_train_batch_end(self, running: Any, module: Any, *rest: Any) -> None:
            super().on_train_batch_end(running, module, *rest)
            self.metrics = dict(self.get_metrics(running, module))

    bar = RecordingBar()
    trainer(callback, bar, enable_progress_bar=True).fit(Module([0.5, 1.0]))
    assert (bar.metrics["zeus_bso/batch_size"], bar.metrics["zeus_bso/trial"]) == (16, 1)
    assert bar.metrics["zeus_bso/cost_j"] == 10.0


def test_one_line_at_the_end_compares_the_run_with_the_job(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    fields = job(batch_sizes=[8, 16], num_pruning_rounds=1)
    for joules, metrics in ((36.0, [1.0]), (18.0, [1.0])):
        caplog.clear()
        with caplog.at_level(logging.INFO):
            fit(ZeusBSOCallback(server.url, fields, energy_monitor=ScriptedMonitor(iter([joules]))), Module(metrics))
    (line,) = (entry.message for entry in caplog.records if entry.message.startswith("Batch-size optimizer:"))
    assert "The run used 18.0 J of energy in 1 s; recommended: 8, cost 18.0 J in one run" in line
    assert (
        "Runs with the default batch size 16 cost 36.0 J on average; this run used 18.0 J (5.00 mWh) less energy than "
        "they do on average" in line
    )


def test_a_verdict_that_comes_as_the_fit_ends_is_shown_like_any_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Away(pl.Callback):
        """Stops the server from the second epoch to the end of the training."""

        def on_train_epoch_start(self, running: pl.Trainer, *_: Any) -> None:
            if running.current_epoch == 1:
                server.kill()

        def on_train_end(self, *_: Any) -> None:
            server.start()

    logger = CSVLogger(tmp_path, name=None, version="run")
    with Server(f"sqlite:///{tmp_path / 'bso.db'}", tmp_path) as server, caplog.at_level(logging.INFO):
        callback = ZeusBSOCallback(server.url, job(), energy_monitor=ScriptedMonitor())
        trainer(callback, Away(), max_epochs=2, logger=logger, log_every_n_steps=1).fit(Module([0.5, 1.0]))
    assert callback.result is not None
    assert callback.result.converged
    assert [entry for entry in caplog.records if entry.message.startswith("Batch-size optimizer:")]
    with (Path(logger.log_dir) / "metrics.csv").open() as file:
        assert [row["zeus_bso/cost_j"] for row in csv.DictReader(file) if row["zeus_bso/cost_j"]][-1] == "20.0"


def test_a_run_whose_server_went_away_blames_no_setting_of_the_trainer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    class Kill(pl.Callback):
        def on_train_epoch_start(self, running: pl.Trainer, *_: Any) -> None:
            if running.current_epoch == 1:
                server.kill()

    with Server(f"sqlite:///{tmp_path / 'bso.db'}", tmp_path) as server:
        callback = ZeusBSOCallback(server.url, job(max_epochs=2), energy_monitor=ScriptedMonitor())
        trainer(callback, Kill(), max_epochs=2).fit(Module([0.5, 1.0]))
    assert "Trial 1 stays open until its lease expires: the server is unreachable" in caplog.messages
    assert not [warning for warning in recwarn if "before the optimizer had a verdict" in str(warning.message)]


def test_a_failed_run_may_end_the_fit_without_an_error(server: Server) -> None:
    callback = ZeusBSOCallback(server.url, job(max_epochs=2), energy_monitor=ScriptedMonitor(), on_fail="stop")
    running = fit(callback, Module())
    assert running.state.finished
    assert running.current_epoch == 2
    assert callback.result is not None
    assert not callback.result.converged
