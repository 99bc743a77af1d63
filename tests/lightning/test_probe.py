"""A few steps of every batch size after a run, by a copy: the training itself is left as it was."""

import json
import logging
import multiprocessing
import random
import signal
from collections.abc import Callable, Iterator
from itertools import chain, repeat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader

from lightning_bso import BsoClient, ZeusBSOCallback, ZeusBSOTrainFailError, probing
from tests.client.jobs import ScriptedMonitor, job, only_trial, warnings
from tests.databases import connected
from tests.lightning.trainings import FIRST_SIZE, OLD_SIZE, Bare, Data, Module, fit, rows, trainer
from tests.servers import WaitressServer

ALL_SIZES = {8, FIRST_SIZE, 32}


@pytest.fixture
def _in_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Probes may take longer than these tiny runs, and look at a few steps."""
    monkeypatch.setattr(probing, "MOST_SHARE", 1000.0)
    monkeypatch.setattr(probing, "MEASURE_S", 0.0)


@pytest.fixture
def _luck_put_back() -> Iterator[None]:
    """These tests seed the generators."""
    state = torch.get_rng_state()
    yield
    torch.set_rng_state(state)


class Watched(Module):
    """Tells all sizes that it or a copy of it has seen, in this one set."""

    def __init__(self, metrics: list[float] | None = None) -> None:
        super().__init__([1.0] if metrics is None else metrics)
        self.everywhere = _Shared()

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        self.everywhere.sizes.add(len(batch[0]))
        if self.trainer.max_epochs != 10:
            self.in_a_copy(len(batch[0]))
        return super().training_step(batch, index)

    def in_a_copy(self, size: int) -> None:
        """What happens in a step of a probe."""


class _Shared:
    """Is not copied with what holds it."""

    def __init__(self) -> None:
        self.sizes: set[int] = set()
        self.written: list[str] = []

    def __deepcopy__(self, memo: Any) -> "_Shared":
        return self


class Restless(Watched):
    """Has all that a training may leave behind: momentum, dropout, a scheduler at its end, metrics, logs."""

    def __init__(self) -> None:
        super().__init__([0.2, 0.7, 1.0])
        self.dropout = torch.nn.Dropout(0.5)
        self.norm = torch.nn.BatchNorm1d(1)
        self.register_buffer("unsaved", torch.zeros(1), persistent=False)

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        self.unsaved += 1
        loss: torch.Tensor = self.dropout(super().training_step([self.norm(batch[0])], index) + 1)
        self.log("train_loss", loss)
        return loss

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=1e-2, momentum=0.9)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=12)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    def configure_callbacks(self) -> list[pl.Callback]:
        return [EarlyStopping("val_acc", mode="max", patience=100)]


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


def exit_code_of(train: Callable[[], object]) -> int | None:
    """How a process of its own ends in whose main thread this runs, where Lightning hears of signals."""
    process = multiprocessing.get_context("fork").Process(target=train)
    process.start()
    process.join(60)
    return process.exitcode


@pytest.mark.usefixtures("_in_no_time", "_luck_put_back")
def test_a_probe_leaves_the_training_as_it_was(server: WaitressServer, client: BsoClient, tmp_path: Path) -> None:
    runs = []
    for probe in ("auto", None):
        pl.seed_everything(1, verbose=False)
        callback = ZeusBSOCallback(server.url, job(policy="gp-ucb", eta_knob=0.0), probe=probe)
        checkpoint = ModelCheckpoint(tmp_path / str(probe), monitor="val_acc", mode="max", save_last=True)
        logger = CSVLogger(tmp_path / str(probe), name=None, version="run")
        running = trainer(callback, checkpoint, enable_checkpointing=True, logger=logger, log_every_n_steps=1)
        module = Restless()
        running.fit(module)
        assert is_wanted(client, callback) is (probe is None)
        assert module.everywhere.sizes == (ALL_SIZES if probe else {FIRST_SIZE})
        assert module.sizes_seen == {FIRST_SIZE}
        assert module.trainer is running
        assert running.train_dataloader is not None
        assert running.train_dataloader.batch_size == FIRST_SIZE
        (optimizer,) = running.optimizers
        runs.append(
            {
                "weights": module.state_dict(),
                "gradients": [parameter.grad for parameter in module.parameters()],
                "unsaved buffer": module.unsaved,
                "batch size": module.batch_size,
                "momentum": [state["momentum_buffer"] for state in optimizer.state.values()],
                "schedule": running.lr_scheduler_configs[0].scheduler.state_dict()["last_epoch"],
                "progress": (running.global_step, running.current_epoch, running.should_stop),
                "callbacks": [type(one).__name__ for one in running.callbacks],
                "metrics": {name: float(value) for name, value in running.callback_metrics.items()},
                "luck": (random.random(), float(np.random.rand()), float(torch.rand(1))),
                "logged": (Path(logger.log_dir) / "metrics.csv").read_text().count("\n"),
                "still fits": [running.fit_loop.epoch_loop.batch_progress.total.completed, running.state.finished],
            }
        )
    probed, plain = runs
    assert {name: str(value) for name, value in probed.items()} == {name: str(value) for name, value in plain.items()}


@pytest.mark.usefixtures("_in_no_time")
def test_the_next_run_knows_what_an_epoch_costs_and_no_run_probes_again(
    server: WaitressServer, client: BsoClient
) -> None:
    callback = probing_callback(server)
    fit(callback, Watched())
    assert not is_wanted(client, callback)
    module = Watched()
    again = ZeusBSOCallback(server.url, callback.job, probe="auto")
    fit(again, module)
    assert module.everywhere.sizes == {again.batch_size}


class SetUpOnce(Data):
    """Data that take long to prepare, and are large."""

    def __init__(self) -> None:
        super().__init__()
        self.times_set_up = 0
        self.everywhere = _Shared()

    def prepare_data(self) -> None:
        self.times_set_up += 1

    def setup(self, stage: str) -> None:
        self.times_set_up += 1
        self.rows = rows()

    def train_dataloader(self) -> DataLoader[Any]:
        assert self.times_set_up == 2
        assert self.trainer is not None
        self.everywhere.sizes.add(id(self.rows))
        return DataLoader(self.rows, batch_size=self.batch_size)


@pytest.mark.usefixtures("_in_no_time")
def test_a_datamodule_is_not_set_up_again_for_a_probe_and_its_data_are_not_copied(
    server: WaitressServer, client: BsoClient
) -> None:
    callback, data = probing_callback(server), SetUpOnce()
    fit(callback, Bare([1.0]), data)
    assert not is_wanted(client, callback)
    assert data.everywhere.sizes == {id(data.rows)}
    assert data.batch_size == FIRST_SIZE


@pytest.mark.usefixtures("_in_no_time")
def test_a_loader_given_to_fit_is_probed_too_and_kept(server: WaitressServer, client: BsoClient) -> None:
    callback, loader = probing_callback(server), DataLoader(rows(), batch_size=OLD_SIZE)
    running = fit(callback, Bare([1.0]), loader)
    assert not is_wanted(client, callback)
    assert loader.batch_size == OLD_SIZE
    assert running.train_dataloader is not None
    assert running.train_dataloader.batch_size == FIRST_SIZE


class TooLarge(Watched):
    """Does not fit in memory, as a probe finds, from some batch size on."""

    largest = FIRST_SIZE
    accelerator = "CUDA"

    def in_a_copy(self, size: int) -> None:
        if size > self.largest:
            raise torch.OutOfMemoryError(f"{self.accelerator} out of memory. Tried to allocate 2.00 GiB")


@pytest.mark.usefixtures("_in_no_time")
@pytest.mark.parametrize("accelerator", ["CUDA", "HIP"])
def test_what_does_not_fit_in_memory_is_ruled_out_before_a_run_is_spent_on_it(
    accelerator: str, server: WaitressServer, client: BsoClient
) -> None:
    callback, module = probing_callback(server), TooLarge()
    module.accelerator = accelerator
    running = fit(callback, module)
    assert running.state.finished
    assert ruled_out(client, callback) == {32: "does not fit in memory, as a probe found"}


@pytest.mark.usefixtures("_in_no_time")
def test_a_probe_whose_memory_something_else_takes_tells_nothing(
    server: WaitressServer, client: BsoClient, caplog: pytest.LogCaptureFixture
) -> None:
    callback, module = probing_callback(server), TooLarge()
    module.largest = 8
    fit(callback, module)
    assert warnings(caplog, "batch size 16 did not fit, and had fitted")
    assert ruled_out(client, callback) == {}
    assert is_wanted(client, callback)


def test_a_probe_that_would_take_long_beside_the_run_is_not_made(
    server: WaitressServer, client: BsoClient, caplog: pytest.LogCaptureFixture
) -> None:
    callback, module = probing_callback(server), Watched()
    with caplog.at_level(logging.INFO, "lightning_bso"):
        fit(callback, module)
    assert module.everywhere.sizes == {FIRST_SIZE}
    assert "No probe of batch sizes: it would take" in caplog.text
    assert is_wanted(client, callback)


class WritesDown(Watched):
    """Keeps the model that was trained, in hooks of its own."""

    def on_train_epoch_end(self) -> None:
        self.everywhere.written.append("epoch")

    def on_train_end(self) -> None:
        self.everywhere.written.append("training")

    def on_fit_end(self) -> None:
        self.everywhere.written.append("fit")

    def on_exception(self, exception: BaseException) -> None:
        self.everywhere.written.append("exception")

    def in_a_copy(self, size: int) -> None:
        if size == 32:
            raise ValueError("and one more hook")


@pytest.mark.usefixtures("_in_no_time")
def test_what_a_module_writes_down_at_the_end_is_the_trained_model_and_not_its_copy(server: WaitressServer) -> None:
    module = WritesDown([0.5, 1.0])
    fit(probing_callback(server), module)
    assert module.everywhere.sizes == ALL_SIZES
    assert module.everywhere.written == ["epoch", "epoch", "training", "fit"]


class SetsElsewhere(ZeusBSOCallback):
    """Sets the batch size in an object that no copy takes along."""

    config = SimpleNamespace(batch_size=OLD_SIZE)

    def batch_size_setter(self, trainer: pl.Trainer, module: pl.LightningModule) -> Any:
        return lambda batch_size: setattr(self.config, "batch_size", batch_size)


class ReadsElsewhere(Bare):
    """Builds its loader from that object."""

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(rows(), batch_size=SetsElsewhere.config.batch_size)


@pytest.mark.usefixtures("_in_no_time")
def test_a_batch_size_set_outside_of_the_module_is_the_runs_again_after_a_probe(
    server: WaitressServer, client: BsoClient
) -> None:
    callback = SetsElsewhere(server.url, job(policy="gp-ucb"), probe="auto")
    fit(callback, ReadsElsewhere([1.0]))
    assert not is_wanted(client, callback)
    assert SetsElsewhere.config.batch_size == callback.batch_size == FIRST_SIZE


@pytest.mark.usefixtures("_in_no_time")
def test_a_loaders_own_generator_goes_on_as_if_there_had_been_no_probe(
    server: WaitressServer, client: BsoClient
) -> None:
    left = []
    for probe in ("auto", None):
        callback = ZeusBSOCallback(server.url, job(policy="gp-ucb", eta_knob=0.0), probe=probe)
        generator = torch.Generator().manual_seed(1)
        fit(callback, Bare([1.0]), DataLoader(rows(), batch_size=OLD_SIZE, shuffle=True, generator=generator))
        assert is_wanted(client, callback) is (probe is None)
        left.append(generator.get_state().tolist())
    assert left[0] == left[1]


class Preempted(Watched):
    """Slurm wants the machine back in the probe."""

    def in_a_copy(self, size: int) -> None:
        if size == 32:
            signal.raise_signal(signal.SIGUSR1)


@pytest.mark.usefixtures("_in_no_time")
def test_slurm_preempting_a_run_in_the_probe_ends_it_as_it_does_after_any_fit_and_saves_no_copy(
    server: WaitressServer, client: BsoClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables = {"JOB_ID": "77", "JOB_NAME": "train", "NTASKS": "1", "LOCALID": "0", "NODEID": "0", "PROCID": "0"}
    for name, value in variables.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    callback = probing_callback(server)
    assert exit_code_of(lambda: fit(callback, Preempted(), default_root_dir=tmp_path)) == -signal.SIGUSR1
    assert only_trial(client, callback.job.job_id_prefix).converged
    assert not list(tmp_path.iterdir())


class FailsLater(ScriptedMonitor):
    """Tells what cannot be, once the training is over."""

    def __init__(self, joules: float) -> None:
        super().__init__(chain([10.0], repeat(joules)))


@pytest.mark.usefixtures("_in_no_time")
@pytest.mark.parametrize("joules", [float("nan"), -5.0])
def test_a_meter_that_fails_in_the_probe_ends_it_and_not_the_training(
    joules: float, server: WaitressServer, client: BsoClient, caplog: pytest.LogCaptureFixture
) -> None:
    callback = probing_callback(server, energy_monitor=FailsLater(joules))
    assert fit(callback, Watched()).state.finished
    assert warnings(caplog, f"the energy meter told {joules} J in 1.0 s")
    assert is_wanted(client, callback)


@pytest.mark.usefixtures("_in_no_time")
def test_a_run_that_ends_within_an_epoch_has_cost_the_part_of_it(server: WaitressServer) -> None:
    callback = probing_callback(server, energy_monitor=ScriptedMonitor())
    fit(callback, Watched([0.5] * 6 + [1.0]), val_check_interval=0.25)
    with connected(server.database_url) as connection:
        told = connection.exec_driver_sql(f"SELECT probes FROM jobs WHERE job_id = '{callback.job_id}'").scalar_one()
    (epoch_s,) = (one["epoch_time"] for one in json.loads(told)["0"]["sizes"] if one["batch_size"] == FIRST_SIZE)
    assert epoch_s == pytest.approx(7 / 1.75)


class Fussy(Restless):
    """Some of its copies do not train."""

    def in_a_copy(self, size: int) -> None:
        raise ValueError("only once, please")


class Skipping(Watched):
    """Its copies skip every epoch."""

    def on_train_batch_start(self, batch: Any, index: int) -> int | None:
        return -1 if self.trainer.max_epochs != 10 else None


class Interrupted(Watched):
    """The user presses Ctrl-C in the probe."""

    def in_a_copy(self, size: int) -> None:
        raise KeyboardInterrupt  # as its handler does, unless a shell has the process ignore it


class Locked(Watched):
    """Holds what cannot be copied."""

    def on_train_end(self) -> None:
        self.generator = (number for number in range(3))


@pytest.mark.usefixtures("_in_no_time")
@pytest.mark.parametrize(
    ("module", "said"),
    [
        (Fussy(), "ValueError: only once, please"),
        (Skipping(), ""),
        (Interrupted(), "broken off: interrupted"),
        (Locked(), "TypeError: cannot pickle 'generator' object"),
    ],
    ids=["the copy fails", "the copy takes no step", "Ctrl-C", "no copy"],
)
def test_a_probe_that_comes_to_nothing_costs_the_training_nothing(
    module: Watched, said: str, server: WaitressServer, client: BsoClient, caplog: pytest.LogCaptureFixture
) -> None:
    on_interrupt = signal.getsignal(signal.SIGINT)
    callback = probing_callback(server)
    running = fit(callback, module)
    assert running.state.finished
    assert running.callbacks[0] is callback
    assert callback.result is not None
    assert callback.result.converged
    assert (module.batch_size, module.sizes_seen) == (FIRST_SIZE, {FIRST_SIZE})
    assert signal.getsignal(signal.SIGINT) is on_interrupt
    assert is_wanted(client, callback)
    assert not said or warnings(caplog, said)


@pytest.mark.usefixtures("_in_no_time")
def test_a_run_that_converges_within_its_first_epoch_is_not_followed_by_a_probe(
    server: WaitressServer, client: BsoClient, caplog: pytest.LogCaptureFixture
) -> None:
    callback = probing_callback(server)
    fit(callback, Watched(), val_check_interval=2)
    assert warnings(caplog, "the run took less than an epoch")
    assert is_wanted(client, callback)


class Terminated(Watched):
    """Its process is told to end in the probe."""

    def in_a_copy(self, size: int) -> None:
        signal.raise_signal(signal.SIGTERM)


@pytest.mark.usefixtures("_in_no_time")
def test_a_process_that_is_told_to_end_in_the_probe_ends(server: WaitressServer, client: BsoClient) -> None:
    callback = probing_callback(server)
    assert exit_code_of(lambda: fit(callback, Terminated())) == -signal.SIGTERM
    assert only_trial(client, callback.job.job_id_prefix).converged


@pytest.mark.usefixtures("_in_no_time")
def test_a_module_that_torch_compile_has_wrapped_is_not_probed(
    server: WaitressServer, client: BsoClient, caplog: pytest.LogCaptureFixture
) -> None:
    callback = probing_callback(server)
    fit(callback, torch.compile(Module([1.0]), backend="eager"))  # type: ignore[arg-type]  # it is a module still
    assert warnings(caplog, "torch.compile has wrapped cannot be copied")
    assert is_wanted(client, callback)


@pytest.mark.usefixtures("_in_no_time")
def test_only_a_run_that_has_converged_is_followed_by_a_probe(server: WaitressServer) -> None:
    module = Watched([0.5] * 10)
    with pytest.raises(ZeusBSOTrainFailError):
        fit(probing_callback(server), module)
    assert module.everywhere.sizes == {FIRST_SIZE}


def test_nothing_is_probed_unless_asked_for(server: WaitressServer, client: BsoClient) -> None:
    callback, module = ZeusBSOCallback(server.url, job(policy="gp-ucb")), Watched()
    fit(callback, module)
    assert module.everywhere.sizes == {FIRST_SIZE}
    assert is_wanted(client, callback)
    with pytest.raises(ValueError, match="probe='always' is not known"):
        ZeusBSOCallback(server.url, job(), probe="always")  # type: ignore[arg-type]
