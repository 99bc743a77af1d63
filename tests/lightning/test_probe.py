"""A few steps of every batch size after the first run, of which nothing is to be seen afterwards but what they tell."""

import logging
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

from lightning_bso import BsoClient, ZeusBSOCallback, probing
from tests.client.jobs import job
from tests.lightning.trainings import FIRST_SIZE, Module, trainer
from tests.servers import WaitressServer


@pytest.fixture
def _in_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Probes may take longer than these tiny runs, and look at a few steps."""
    monkeypatch.setattr(probing, "MOST_SHARE", 1000.0)
    monkeypatch.setattr(probing, "MEASURE_S", 0.0)


class Restless(Module):
    """Has all that a training may leave behind: momentum, dropout, a scheduler at its end, logs."""

    def __init__(self) -> None:
        super().__init__([0.2, 0.7, 1.0])
        self.dropout = torch.nn.Dropout(0.5)
        self.as_trained: dict[str, torch.Tensor] = {}
        self.steps_trained = 0

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        loss: torch.Tensor = self.dropout(super().training_step(batch, index) + 1)
        self.log("train_loss", loss)
        return loss

    def on_train_end(self) -> None:
        self.as_trained = {name: value.clone() for name, value in self.state_dict().items()}
        self.steps_trained = self.trainer.global_step

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=1e-2, momentum=0.9)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=12)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


class TooLarge(Module):
    """Does not fit in memory with 32 rows."""

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        if len(batch[0]) > FIRST_SIZE:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return super().training_step(batch, index)


def probing_callback(server: WaitressServer, **options: Any) -> ZeusBSOCallback:
    """A callback that may probe, of a job of its own."""
    return ZeusBSOCallback(server.url, job(policy="gp-ucb", eta_knob=0.0), probe="auto", **options)


def ruled_out(client: BsoClient, callback: ZeusBSOCallback) -> dict[int, str]:
    """What the server does not give any more."""
    sizes = client.describe(str(callback.job_id)).batch_sizes
    return {one.batch_size: one.ruled_out for one in sizes if one.ruled_out}


def is_wanted(client: BsoClient, callback: ZeusBSOCallback) -> bool:
    """Whether the server still wants a probe."""
    return client.ask(str(callback.job_id), "another run").probe_wanted


@pytest.fixture
def _luck_put_back() -> Iterator[None]:
    """These tests seed the generators."""
    state = torch.get_rng_state()
    yield
    torch.set_rng_state(state)


@pytest.mark.usefixtures("_in_no_time", "_luck_put_back")
def test_a_probe_leaves_the_training_as_it_was(server: WaitressServer, client: BsoClient, tmp_path: Path) -> None:
    runs = []
    for probe in ("auto", None):
        pl.seed_everything(1, verbose=False)
        callback = ZeusBSOCallback(server.url, job(policy="gp-ucb", eta_knob=0.0), probe=probe)
        checkpoint = ModelCheckpoint(tmp_path / str(probe) / "checkpoints", monitor="val_acc", mode="max", save_last=True)
        logger = CSVLogger(tmp_path / str(probe), name=None, version="run")
        running = trainer(callback, checkpoint, enable_checkpointing=True, logger=logger, log_every_n_steps=1)
        module = Restless()
        running.fit(module)
        assert is_wanted(client, callback) is (probe is None)
        assert module.sizes_seen == ({8, 16, 32} if probe else {16})
        assert module.batch_size == FIRST_SIZE
        assert running.train_dataloader is not None
        assert running.train_dataloader.batch_size == FIRST_SIZE
        assert running.should_stop
        assert running.callbacks[0] is callback
        assert running.logger is logger
        assert (running.global_step, running.current_epoch) == (module.steps_trained, 3)
        for name, value in module.state_dict().items():
            assert torch.equal(value, module.as_trained[name]), name
        (optimizer,) = running.optimizers
        momentum = [state["momentum_buffer"].clone() for state in optimizer.state.values()]
        schedule = running.lr_scheduler_configs[0].scheduler.state_dict()
        metrics = {name: float(value) for name, value in running.callback_metrics.items()}
        luck = random.random(), float(np.random.default_rng().random() >= 0), float(torch.rand(1))
        logged = (Path(logger.log_dir) / "metrics.csv").read_text()
        runs.append((module.state_dict(), momentum, schedule["last_epoch"], metrics, luck, logged))
    probed, plain = runs
    assert str(probed) == str(plain)


@pytest.mark.usefixtures("_in_no_time")
def test_the_next_run_knows_what_an_epoch_costs_and_no_run_probes_again(
    server: WaitressServer, client: BsoClient
) -> None:
    callback = probing_callback(server)
    trainer(callback).fit(Module([1.0]))
    assert not is_wanted(client, callback)
    again = ZeusBSOCallback(server.url, callback.job, probe="auto")
    module = Module([1.0])
    trainer(again).fit(module)
    assert module.sizes_seen == {again.batch_size}


@pytest.mark.usefixtures("_in_no_time")
def test_what_does_not_fit_in_memory_is_ruled_out_before_a_run_is_spent_on_it(
    server: WaitressServer, client: BsoClient
) -> None:
    callback = probing_callback(server)
    running = trainer(callback)
    running.fit(TooLarge([1.0]))
    assert running.state.finished
    assert ruled_out(client, callback) == {32: "does not fit in memory, as a probe found"}


def test_a_probe_that_would_take_long_beside_the_run_is_not_made(
    server: WaitressServer, client: BsoClient, caplog: pytest.LogCaptureFixture
) -> None:
    callback = probing_callback(server)
    module = Module([1.0])
    with caplog.at_level(logging.INFO, "lightning_bso"):
        trainer(callback).fit(module)
    assert module.sizes_seen == {FIRST_SIZE}
    assert "No probe of batch sizes: it would take" in caplog.text
    assert is_wanted(client, callback)


@pytest.mark.usefixtures("_in_no_time")
def test_a_probe_that_fails_costs_the_training_nothing(server: WaitressServer, client: BsoClient) -> None:
    class Fussy(Restless):
        def training_step(self, batch: Any, index: int) -> torch.Tensor:
            if len(batch[0]) != FIRST_SIZE:
                raise ValueError("16 rows, please")
            return super().training_step(batch, index)

    callback, module = probing_callback(server), Fussy()
    running = trainer(callback)
    with pytest.warns(UserWarning, match="probe of batch sizes failed.*ValueError: 16 rows, please"):
        running.fit(module)
    assert running.state.finished
    assert running.callbacks[0] is callback
    assert callback.result is not None
    assert callback.result.converged
    assert module.batch_size == FIRST_SIZE
    for name, value in module.state_dict().items():
        assert torch.equal(value, module.as_trained[name]), name
    assert is_wanted(client, callback)


def test_nothing_is_probed_unless_asked_for(server: WaitressServer, client: BsoClient) -> None:
    callback = ZeusBSOCallback(server.url, job(policy="gp-ucb"))
    module = Module([1.0])
    trainer(callback).fit(module)
    assert module.sizes_seen == {FIRST_SIZE}
    with pytest.raises(ValueError, match="probe='always' is not known"):
        ZeusBSOCallback(server.url, job(), probe="always")  # type: ignore[arg-type]
