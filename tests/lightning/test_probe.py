"""A probe trains a copy for a few steps with every batch size after a run, and leaves the training unchanged."""

import json
import logging
import math
import multiprocessing
import random
import signal
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from functools import partial, wraps
from itertools import chain, repeat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, GradientAccumulationScheduler, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, SequentialSampler
from torchmetrics import MeanMetric

from lightning_bso import BsoClient, ZeusBSOCallback, ZeusBSOTrainFailError
from lightning_bso.lightning import probing
from tests.client.jobs import ScriptedMonitor, job, only_trial, warnings
from tests.databases import connected
from tests.lightning.trainings import FIRST_SIZE, OLD_SIZE, ROWS, Bare, Data, Module, fit, rows, trainer
from tests.servers import Server

ALL_SIZES = {8, FIRST_SIZE, 32}


@pytest.fixture
def _no_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Probes may take longer than these tiny runs, and measure few steps."""
    monkeypatch.setattr(probing, "MAX_SHARE", 1000.0)
    monkeypatch.setattr(probing, "MIN_MEASURE_S", 0.0)


@pytest.fixture
def _rng_restored() -> Iterator[None]:
    """Restore torch's generator, because these tests seed it."""
    state = torch.get_rng_state()
    yield
    torch.set_rng_state(state)


class Watched(Module):
    """Records the batch sizes that it and its copies train with, in one shared object."""

    def __init__(self, metrics: list[float] | None = None) -> None:
        super().__init__([1.0] if metrics is None else metrics)
        self.shared = _Shared()

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        size = len(batch[0])
        self.shared.sizes.add(size)
        if self.is_a_copy:
            self.shared.copies.add(self)
            self.shared.probe_order += [size] if size not in self.shared.probe_order else []
            self.in_a_copy(size)
        return super().training_step(batch, index)

    @property
    def is_a_copy(self) -> bool:
        """Whether a probe trains it."""
        return bool(self.trainer.max_epochs != 10)

    def in_a_copy(self, size: int) -> None:
        """Run in every step of a probe. Subclasses override it."""


class _Shared:
    """Values that a module and its copies share, because deepcopy returns the same object."""

    def __init__(self) -> None:
        self.sizes: set[int] = set()
        self.probe_order: list[int] = []
        self.hooks: list[str] = []
        self.copies: weakref.WeakSet[pl.LightningModule] = weakref.WeakSet()
        self.copied_ids: list[list[int]] = []
        self.trained: Any = None

    def __deepcopy__(self, memo: Any) -> "_Shared":
        return self


class Restless(Watched):
    """Has every kind of training state: momentum, dropout, a scheduler at its end, metrics, logs."""

    def __init__(self) -> None:
        super().__init__([0.2, 0.7, 1.0])
        self.dropout = torch.nn.Dropout(0.5)
        self.norm = torch.nn.BatchNorm1d(1)
        self.register_buffer("unsaved", torch.zeros(1), persistent=False)
        self.mean = MeanMetric()

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        self.unsaved += 1
        self.mean.update(batch[0])
        loss: torch.Tensor = self.dropout(super().training_step([self.norm(batch[0])], index) + 1)
        self.log("train_loss", loss)
        return loss

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=1e-2, momentum=0.9)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=12)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    def configure_callbacks(self) -> list[pl.Callback]:
        return [EarlyStopping("val_acc", mode="max", patience=100)]


def probing_callback(server: Server, **options: Any) -> ZeusBSOCallback:
    """Create a callback that may probe, with its own job."""
    return ZeusBSOCallback(server.url, job(policy="gp-ucb", eta_knob=0.0), probe="auto", **options)


def ruled_out(client: BsoClient, callback: ZeusBSOCallback) -> dict[int, str]:
    """Return the batch sizes that the server has ruled out, with the reasons."""
    sizes = client.describe(str(callback.job_id)).batch_sizes
    return {size.batch_size: size.ruled_out for size in sizes if size.ruled_out}


def is_wanted(client: BsoClient, callback: ZeusBSOCallback) -> bool:
    """Return whether the server still wants a probe."""
    return client.ask(str(callback.job_id), "another run").probe_wanted


def stored_probe(server: Server, callback: ZeusBSOCallback) -> dict[int, dict[str, Any]] | None:
    """Return the job's probe as the server has stored it, by batch size. None: the server has no probe."""
    with connected(server.database_url) as connection:
        stored = connection.exec_driver_sql(f"SELECT probes FROM jobs WHERE job_id = '{callback.job_id}'").scalar_one()
    return None if stored is None else {entry["batch_size"]: entry for entry in json.loads(stored)["0"]["sizes"]}


def exit_code_of(train: Callable[[], object]) -> int | None:
    """Train in a new process, and return its exit code. In its main thread Lightning can handle signals."""
    process = multiprocessing.get_context("fork").Process(target=train)
    process.start()
    process.join(60)
    return process.exitcode


@pytest.mark.usefixtures("_no_limits", "_rng_restored")
def test_a_probe_leaves_the_training_as_it_was(server: Server, client: BsoClient, tmp_path: Path) -> None:
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
        assert module.shared.sizes == (ALL_SIZES if probe else {FIRST_SIZE})
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
                "metric": float(module.mean.compute()),
                "batch size": module.batch_size,
                "momentum": [state["momentum_buffer"] for state in optimizer.state.values()],
                "schedule": running.lr_scheduler_configs[0].scheduler.state_dict()["last_epoch"],
                "progress": (running.global_step, running.current_epoch, running.should_stop),
                "callbacks": [type(each).__name__ for each in running.callbacks],
                "metrics": {name: float(value) for name, value in running.callback_metrics.items()},
                "random numbers": (random.random(), float(np.random.rand()), float(torch.rand(1))),
                "logged": (Path(logger.log_dir) / "metrics.csv").read_text().count("\n"),
                "loops": [running.fit_loop.epoch_loop.batch_progress.total.completed, running.state.finished],
            }
        )
    probed, plain = runs
    assert {name: str(value) for name, value in probed.items()} == {name: str(value) for name, value in plain.items()}


@pytest.mark.usefixtures("_no_limits")
def test_the_next_run_knows_what_an_epoch_costs_and_no_run_probes_again(server: Server, client: BsoClient) -> None:
    callback = probing_callback(server)
    fit(callback, Watched())
    assert not is_wanted(client, callback)
    module = Watched()
    again = ZeusBSOCallback(server.url, callback.job, probe="auto")
    fit(again, module)
    assert module.shared.sizes == {again.batch_size}


class SetUpOnce(Data):
    """Data that may be large, and must be set up only once."""

    def __init__(self) -> None:
        super().__init__()
        self.times_set_up = 0
        self.shared = _Shared()

    def prepare_data(self) -> None:
        self.times_set_up += 1

    def setup(self, stage: str) -> None:
        self.times_set_up += 1
        self.rows = rows()

    def train_dataloader(self) -> DataLoader[Any]:
        assert self.times_set_up == 2
        assert self.trainer is not None
        self.shared.sizes.add(id(self.rows))
        return DataLoader(self.rows, batch_size=self.batch_size)


@pytest.mark.usefixtures("_no_limits")
def test_a_datamodule_is_not_set_up_again_for_a_probe_and_its_data_are_not_copied(
    server: Server, client: BsoClient
) -> None:
    callback, data = probing_callback(server), SetUpOnce()
    fit(callback, Bare([1.0]), data)
    assert not is_wanted(client, callback)
    assert data.shared.sizes == {id(data.rows)}
    assert data.batch_size == FIRST_SIZE


@pytest.mark.usefixtures("_no_limits")
def test_a_loader_given_to_fit_is_probed_too_and_kept(server: Server, client: BsoClient) -> None:
    callback, loader = probing_callback(server), DataLoader(rows(), batch_size=OLD_SIZE)
    running = fit(callback, Bare([1.0]), loader)
    assert not is_wanted(client, callback)
    assert loader.batch_size == OLD_SIZE
    assert running.train_dataloader is not None
    assert running.train_dataloader.batch_size == FIRST_SIZE


class TooLarge(Watched):
    """Runs out of memory in a probe above some batch size."""

    largest = FIRST_SIZE
    accelerator = "CUDA"

    def in_a_copy(self, size: int) -> None:
        if size > self.largest:
            raise torch.OutOfMemoryError(f"{self.accelerator} out of memory. Tried to allocate 2.00 GiB")


@pytest.mark.usefixtures("_no_limits")
@pytest.mark.parametrize("accelerator", ["CUDA", "HIP"])
def test_what_does_not_fit_in_memory_is_ruled_out_before_a_run_is_spent_on_it(
    accelerator: str, server: Server, client: BsoClient
) -> None:
    callback, module = probing_callback(server), TooLarge()
    module.accelerator = accelerator
    running = fit(callback, module)
    assert running.state.finished
    assert ruled_out(client, callback) == {32: "does not fit in memory, according to a probe"}


@pytest.mark.usefixtures("_no_limits")
def test_a_probe_rules_nothing_out_if_something_else_uses_the_memory(
    server: Server, client: BsoClient, caplog: pytest.LogCaptureFixture
) -> None:
    callback, module = probing_callback(server), TooLarge()
    module.largest = 8
    fit(callback, module)
    assert warnings(caplog, "batch size 16 did not fit in memory, but the run's batch size 16 did")
    assert ruled_out(client, callback) == {}


class FailsInTheKernel(Watched):
    """Raises an error with a larger batch size that is not about memory."""

    def in_a_copy(self, size: int) -> None:
        if size == 32:
            raise RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED. This error may appear if …")


@pytest.mark.usefixtures("_no_limits")
def test_only_a_shortage_of_memory_rules_a_batch_size_out(
    server: Server, client: BsoClient, caplog: pytest.LogCaptureFixture
) -> None:
    callback = probing_callback(server)
    fit(callback, FailsInTheKernel())
    assert warnings(caplog, "stopped early: RuntimeError: cuDNN error")
    assert ruled_out(client, callback) == {}
    assert (stored_probe(server, callback) or {}).keys() == {8, FIRST_SIZE}


def test_a_probe_that_would_take_long_beside_the_run_is_not_made_after_this_run_nor_a_later_one(
    server: Server, client: BsoClient, caplog: pytest.LogCaptureFixture
) -> None:
    callback, module = probing_callback(server), Watched()
    with caplog.at_level(logging.INFO, "lightning_bso"):
        fit(callback, module)
    assert module.shared.sizes == {FIRST_SIZE}
    assert "No probe of batch sizes: it would take" in caplog.text
    assert stored_probe(server, callback) == {}
    assert not is_wanted(client, callback)


class RecordsHooks(Watched):
    """Records its hooks, where a user may save the trained model."""

    def on_fit_start(self) -> None:
        self.shared.hooks.append("begin")

    def on_train_start(self) -> None:
        self.shared.hooks.append("training begins")

    def on_train_epoch_end(self) -> None:
        self.shared.hooks.append("epoch")

    def on_train_end(self) -> None:
        self.shared.hooks.append("training")

    def on_fit_end(self) -> None:
        self.shared.hooks.append("fit")

    def on_exception(self, exception: BaseException) -> None:
        self.shared.hooks.append("exception")

    def in_a_copy(self, size: int) -> None:
        if size == 32:
            raise ValueError("and one more hook")


@pytest.mark.usefixtures("_no_limits")
def test_a_copy_does_not_run_the_hooks_where_a_module_may_save_the_trained_model(server: Server) -> None:
    module = RecordsHooks([0.5, 1.0])
    fit(probing_callback(server), module)
    assert module.shared.sizes == ALL_SIZES
    assert module.shared.hooks == ["begin", "training begins", "epoch", "epoch", "training", "fit"]


class SetsElsewhere(ZeusBSOCallback):
    """Sets the batch size in an object that is not copied."""

    config = SimpleNamespace(batch_size=OLD_SIZE)

    def batch_size_setter(self, trainer: pl.Trainer, module: pl.LightningModule) -> Any:
        return lambda batch_size: setattr(self.config, "batch_size", batch_size)


class ReadsElsewhere(Bare):
    """Builds its loader from that object."""

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(rows(), batch_size=SetsElsewhere.config.batch_size)


@pytest.mark.usefixtures("_no_limits")
def test_a_batch_size_set_outside_of_the_module_is_the_runs_again_after_a_probe(
    server: Server, client: BsoClient
) -> None:
    callback = SetsElsewhere(server.url, job(policy="gp-ucb"), probe="auto")
    fit(callback, ReadsElsewhere([1.0]))
    assert not is_wanted(client, callback)
    assert SetsElsewhere.config.batch_size == callback.batch_size == FIRST_SIZE


class SetsSampler(ZeusBSOCallback):
    """Sets the batch size of a loader given to fit."""

    sampler = BatchSampler(SequentialSampler(range(ROWS)), OLD_SIZE, drop_last=False)

    def batch_size_setter(self, trainer: pl.Trainer, module: pl.LightningModule) -> Any:
        return lambda batch_size: setattr(self.sampler, "batch_size", batch_size)


@pytest.mark.usefixtures("_no_limits")
def test_a_batch_size_set_in_a_loader_given_to_fit_is_the_runs_again_after_a_probe(server: Server) -> None:
    callback = SetsSampler(server.url, job(policy="gp-ucb"), probe="auto")
    fit(callback, Bare([1.0]), DataLoader(rows(), batch_sampler=SetsSampler.sampler))
    assert (stored_probe(server, callback) or {}).keys() == ALL_SIZES
    assert SetsSampler.sampler.batch_size == FIRST_SIZE


class SetsOnce(ZeusBSOCallback):
    """Has a setter that works in `setup` only."""

    def batch_size_setter(self, trainer: pl.Trainer, module: pl.LightningModule) -> Any:
        if trainer.state.finished or trainer.max_epochs != 10 or module.sizes_seen:
            raise RuntimeError("too late")
        return super().batch_size_setter(trainer, module)


@pytest.mark.usefixtures("_no_limits")
def test_a_setter_that_fails_in_a_probe_fails_no_training(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    callback = SetsOnce(server.url, job(policy="gp-ucb"), probe="auto")
    assert fit(callback, Watched()).state.finished
    assert warnings(caplog, "stopped early: RuntimeError: too late")
    assert warnings(caplog, "could not restore the run's batch size of 16: RuntimeError: too late")


@pytest.mark.usefixtures("_no_limits")
def test_a_loaders_own_generator_goes_on_as_if_there_had_been_no_probe(server: Server, client: BsoClient) -> None:
    states = []
    for probe in ("auto", None):
        callback = ZeusBSOCallback(server.url, job(policy="gp-ucb", eta_knob=0.0), probe=probe)
        generator = torch.Generator().manual_seed(1)
        fit(callback, Bare([1.0]), DataLoader(rows(), batch_size=OLD_SIZE, shuffle=True, generator=generator))
        assert is_wanted(client, callback) is (probe is None)
        states.append(generator.get_state().tolist())
    assert states[0] == states[1]


class Preempted(Watched):
    """Slurm preempts the run in the probe."""

    def in_a_copy(self, size: int) -> None:
        if size == 32:
            signal.raise_signal(signal.SIGUSR1)


@pytest.mark.usefixtures("_no_limits")
def test_slurm_preempting_a_run_in_the_probe_ends_it_as_it_does_after_any_fit_and_saves_no_copy(
    server: Server, client: BsoClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables = {"JOB_ID": "77", "JOB_NAME": "train", "NTASKS": "1", "LOCALID": "0", "NODEID": "0", "PROCID": "0"}
    for name, value in variables.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    callback = probing_callback(server)
    assert exit_code_of(lambda: fit(callback, Preempted(), default_root_dir=tmp_path)) == -signal.SIGUSR1
    assert only_trial(client, callback.job.job_id_prefix).converged
    assert not list(tmp_path.iterdir())


class FailsLater(ScriptedMonitor):
    """Returns an impossible energy once the training is over."""

    def __init__(self, joules: float) -> None:
        super().__init__(chain([10.0], repeat(joules)))


@pytest.mark.usefixtures("_no_limits")
@pytest.mark.parametrize("joules", [float("nan"), float("inf"), -5.0])
def test_a_meter_that_fails_in_the_probe_ends_it_and_not_the_training(
    joules: float, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    callback = probing_callback(server, energy_monitor=FailsLater(joules))
    assert fit(callback, Watched()).state.finished
    assert warnings(caplog, f"the energy meter returned {joules} J in 1.0 s")
    assert stored_probe(server, callback) == {}


@pytest.mark.usefixtures("_no_limits")
def test_a_run_that_ends_within_an_epoch_has_cost_the_part_of_it(server: Server) -> None:
    callback = probing_callback(server, energy_monitor=ScriptedMonitor())
    fit(callback, Watched([0.5] * 6 + [1.0]), val_check_interval=0.25)
    assert (stored_probe(server, callback) or {})[FIRST_SIZE]["epoch_time"] == pytest.approx(7 / 1.75)


class Fussy(Restless):
    """Its copies raise in their first step."""

    def in_a_copy(self, size: int) -> None:
        raise ValueError("only once, please")


class Skipping(Watched):
    """Its copies skip every epoch."""

    def on_train_batch_start(self, batch: Any, index: int) -> int | None:
        return -1 if self.trainer.max_epochs != 10 else None


class Leaving(Watched):
    """Calls `sys.exit` in a step of a copy."""

    def in_a_copy(self, size: int) -> None:
        sys.exit(3)


class Locked(Watched):
    """Holds an object that cannot be copied."""

    def on_train_end(self) -> None:
        self.lock = threading.Lock()


@pytest.mark.usefixtures("_no_limits")
@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Fussy(), "stopped early: ValueError: only once, please"),
        (Skipping(), "stopped early: too few training steps ran with batch size 16"),
        (Leaving(), "stopped early: SystemExit: 3"),
        (Locked(), "stopped early: TypeError: cannot pickle '_thread.lock' object"),
    ],
    ids=["the copy fails", "the copy takes no step", "the copy exits", "no copy"],
)
def test_a_failed_probe_does_not_affect_the_training_and_is_not_repeated(
    module: Watched, message: str, server: Server, client: BsoClient, caplog: pytest.LogCaptureFixture
) -> None:
    callback = probing_callback(server)
    running = fit(callback, module)
    assert running.state.finished
    assert running.callbacks[0] is callback
    assert callback.result is not None
    assert callback.result.converged
    assert (module.batch_size, module.sizes_seen) == (FIRST_SIZE, {FIRST_SIZE})
    assert warnings(caplog, message)
    assert not is_wanted(client, callback)


class Interrupted(Watched):
    """The user presses Ctrl-C in the probe."""

    def in_a_copy(self, size: int) -> None:
        raise KeyboardInterrupt  # as Python's handler does; a real signal may be ignored in a background process


class InterruptedEarly(Watched):
    """The user presses Ctrl-C during the copying."""

    def __deepcopy__(self, memo: Any) -> Any:
        raise KeyboardInterrupt


@pytest.mark.usefixtures("_no_limits")
@pytest.mark.parametrize("module", [Interrupted(), InterruptedEarly()], ids=["in a step", "in the copying"])
def test_ctrl_c_ends_a_probe_and_not_the_fit_and_a_later_run_may_probe(
    module: Watched, server: Server, client: BsoClient, caplog: pytest.LogCaptureFixture
) -> None:
    interrupt_handler = signal.getsignal(signal.SIGINT)
    callback = probing_callback(server)
    assert fit(callback, module).state.finished
    assert signal.getsignal(signal.SIGINT) is interrupt_handler
    assert warnings(caplog, "was interrupted by Ctrl-C")
    assert is_wanted(client, callback)


@pytest.mark.usefixtures("_no_limits")
def test_a_run_that_converges_within_its_first_epoch_is_not_followed_by_a_probe(
    server: Server, client: BsoClient, caplog: pytest.LogCaptureFixture
) -> None:
    callback = probing_callback(server)
    fit(callback, Watched(), val_check_interval=2)
    assert warnings(caplog, "the run took less than an epoch")
    assert not is_wanted(client, callback)


class Terminated(Watched):
    """Its process gets a SIGTERM in the probe."""

    def in_a_copy(self, size: int) -> None:
        signal.raise_signal(signal.SIGTERM)


@pytest.mark.usefixtures("_no_limits")
def test_a_process_that_gets_a_sigterm_in_the_probe_ends(server: Server, client: BsoClient) -> None:
    callback = probing_callback(server)
    assert exit_code_of(lambda: fit(callback, Terminated())) == -signal.SIGTERM
    assert only_trial(client, callback.job.job_id_prefix).converged


@pytest.mark.usefixtures("_no_limits")
def test_a_sigterm_in_the_probe_calls_a_users_handler_once(server: Server) -> None:
    signals: list[int] = []

    def train() -> None:
        signal.signal(signal.SIGTERM, lambda signal_number, frame: signals.append(signal_number))
        running = fit(probing_callback(server), Terminated())
        sys.exit(len(signals) if running.state.finished else -1)

    assert exit_code_of(train) == 1


class Compiled(Watched):
    """Has a compiled layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.compile(self.layer, backend="eager")  # type: ignore[assignment]  # it is a module still


class Streamed(Watched):
    """Trains on an endless stream."""

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(Endless(), batch_size=self.batch_size)


class Sparse(Watched):
    """Has a sparse buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("neighbours", torch.eye(2).to_sparse(), persistent=False)


class Endless(IterableDataset[Any]):
    """An endless stream."""

    def __iter__(self) -> Iterator[Any]:
        while True:
            yield (torch.ones(1),)


@pytest.mark.usefixtures("_no_limits")
@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (lambda: torch.compile(Module([1.0]), backend="eager"), {}, "torch.compile would compile again"),
        (Compiled, {}, "torch.compile would compile again"),
        (Sparse, {}, "the module holds sparse tensors"),
        (Streamed, {"limit_train_batches": 4}, "its training data are a stream"),
        (Watched, {"overfit_batches": 2}, "with overfit_batches the probe would include the validation"),
        (Watched, {"accumulate_grad_batches": 2}, "gradients are accumulated"),
        (Watched, {"callbacks": [GradientAccumulationScheduler({0: 2, 1: 1})]}, "gradients are accumulated"),
    ],
    ids=["compiled", "a part compiled", "sparse", "a stream", "overfitting", "accumulation", "scheduled accumulation"],
)
def test_a_probe_that_would_differ_from_the_fit_is_not_made_and_the_log_says_once_why(
    make: Callable[[], Module],
    options: dict[str, Any],
    message: str,
    server: Server,
    client: BsoClient,
    caplog: pytest.LogCaptureFixture,
) -> None:
    first = probing_callback(server)
    others = options.pop("callbacks", [])
    for callback in (first, ZeusBSOCallback(server.url, first.job, probe="auto")):
        module = make()
        trainer(callback, *others, **options).fit(module)
        assert module.sizes_seen == {callback.batch_size}
    assert len(warnings(caplog, f"No probe of batch sizes: {message}")) == 1
    assert not is_wanted(client, first)


@pytest.mark.usefixtures("_no_limits")
def test_a_job_whose_larger_batches_are_taken_in_parts_is_not_probed(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    callback = probing_callback(server, max_device_batch_size=FIRST_SIZE, accumulate="auto")
    fit(callback, Watched())
    assert warnings(caplog, "No probe of batch sizes: gradients are accumulated")
    assert stored_probe(server, callback) == {}


def timed(step: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a method, as a profiler may do at run time."""

    @wraps(step)
    def stepping(*arguments: Any) -> Any:
        return step(*arguments)

    return stepping


def decorate(module: Watched) -> None:
    """Decorate the module's training step."""
    module.training_step = timed(module.training_step)  # type: ignore[method-assign]  # as users do


def hook(module: Watched) -> None:
    """Make the module store the outputs of a layer."""
    outputs: list[Any] = []
    module.layer.register_forward_hook(lambda layer, inputs, output: outputs.append(output))


def hold_in_a_tuple(module: Watched) -> None:
    """Make the module hold a tuple, which holds a partial of a decorated function."""
    module.steps = (partial(timed(module.training_step), 0),)  # type: ignore[assignment]


def hold_a_method(module: Watched) -> None:
    """Make the module hold a method of a list."""
    module.note = [1.0].append  # type: ignore[assignment]


def refer_to_itself(module: Watched) -> None:
    """Make the module hold a weak reference to itself."""
    module.itself = weakref.ref(module)  # type: ignore[assignment]


@pytest.mark.usefixtures("_no_limits")
@pytest.mark.parametrize("change", [decorate, hook, hold_in_a_tuple, hold_a_method, refer_to_itself])
def test_a_copy_that_would_share_a_function_with_a_reference_to_the_module_is_not_trained(
    change: Callable[[Watched], None], server: Server, client: BsoClient, caplog: pytest.LogCaptureFixture
) -> None:
    callback, module = probing_callback(server), Watched()
    change(module)
    fit(callback, module)
    assert warnings(caplog, "stopped early: ValueError: a copy would share")
    assert module.shared.sizes == {FIRST_SIZE}
    assert not is_wanted(client, callback)


class TrainsByGlobalName(Watched):
    """Trains the module behind a name that all copies share, such as a global name."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(1)
        self.shared.trained = self

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        super().training_step(batch, index)
        trained: TrainsByGlobalName = self.shared.trained
        if self.is_a_copy:
            with torch.no_grad():
                trained.layer.weight += 1
        loss: torch.Tensor = trained.layer(trained.norm(batch[0])).mean()
        return loss


@pytest.mark.usefixtures("_no_limits", "_rng_restored")
def test_a_module_that_its_copy_has_trained_is_restored(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    states = []
    for probe in ("auto", None):
        torch.manual_seed(1)
        module = TrainsByGlobalName()
        callback = ZeusBSOCallback(server.url, job(policy="gp-ucb"), probe=probe)
        fit(callback, module)
        states.append([str(module.state_dict()), str([parameter.grad for parameter in module.parameters()])])
        assert stored_probe(server, callback) == ({} if probe else None)
    assert states[0] == states[1]
    assert warnings(caplog, "failed: RuntimeError: the copy changed the trained module, which has been restored")


class Unmeasured(Watched):
    """Has a buffer with NaN."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("best", torch.tensor([math.nan, 1.0]))
        self.register_buffer("seen", torch.tensor(False))


@pytest.mark.usefixtures("_no_limits")
def test_nan_in_a_module_does_not_count_as_a_change(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    callback = probing_callback(server)
    fit(callback, Unmeasured())
    assert not warnings(caplog, "The probe of batch sizes failed")
    assert set(stored_probe(server, callback) or {}) == ALL_SIZES


class Copied(Data):
    """Holds data in several kinds of containers."""

    def __init__(self) -> None:
        super().__init__()
        self.sets = {"train": rows()}
        self.arrays = [np.zeros(3), torch.zeros(3)]
        self.encoder = torch.nn.Linear(1, 1)
        self.settings = [1]
        self.shared = _Shared()

    def train_dataloader(self) -> DataLoader[Any]:
        values = (self.sets["train"], *self.arrays, self.encoder.weight, self.settings)
        self.shared.copied_ids.append([id(value) for value in values])
        return DataLoader(self.sets["train"], batch_size=self.batch_size)


@pytest.mark.usefixtures("_no_limits")
def test_data_that_a_datamodule_holds_in_dicts_and_lists_are_not_copied_and_all_else_is(
    server: Server,
) -> None:
    data = Copied()
    fit(probing_callback(server), Bare([1.0]), data)
    original, *copies = data.shared.copied_ids
    assert len(copies) == 3
    assert [[mine == theirs for mine, theirs in zip(original, copy, strict=True)] for copy in copies] == [
        [True, True, True, False, False]
    ] * 3


@pytest.mark.usefixtures("_no_limits")
def test_nothing_is_left_of_the_copies(server: Server) -> None:
    module = Watched()
    fit(probing_callback(server), module)
    assert module.shared.probe_order == [FIRST_SIZE, 8, 32]
    assert not list(module.shared.copies)


class Clock:
    """The clock of a probe, which a test advances. It is also an energy monitor that measures with this clock."""

    gpu_indices = [0]  # noqa: RUF012 - as in Zeus

    def __init__(self) -> None:
        self.now_s = 0.0
        self._began_s = 0.0

    def __deepcopy__(self, memo: Any) -> "Clock":
        return self

    def begin_window(self, key: str, sync_execution: bool = True) -> None:
        """Begin a measurement."""
        self._began_s = self.now_s

    def end_window(self, key: str, sync_execution: bool = True) -> Any:
        """End the measurement. A second takes 10 J."""
        return SimpleNamespace(time=self.now_s - self._began_s, total_energy=10 * (self.now_s - self._began_s))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock for runs of 6 s: two epochs of 4 steps of 0.75 s. A probe may then take 60 s."""
    clock = Clock()
    monkeypatch.setattr(probing, "MAX_SHARE", 10.0)
    monkeypatch.setattr(probing, "MIN_MEASURE_S", 0.0)
    monkeypatch.setattr(probing, "time", SimpleNamespace(monotonic=lambda: clock.now_s))
    return clock


class Taking(Watched):
    """Advances the clock: 0.75 s for a step with any batch size, and `takes_s` for the parts of a probe."""

    def __init__(self, clock: Clock, **takes_s: float) -> None:
        super().__init__([0.5, 1.0])
        self.clock, self.takes_s = clock, takes_s

    def __deepcopy__(self, memo: Any) -> Any:
        self.clock.now_s += self.takes_s.get("copying", 0.0)
        copied = type(self)(self.clock, **self.takes_s)
        copied.shared = self.shared
        return copied

    def configure_optimizers(self) -> torch.optim.Optimizer:
        self._take("set-up")
        return super().configure_optimizers()

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        self.clock.now_s += 0.75
        self._take("step")
        return super().training_step(batch, index)

    def cpu(self) -> Any:
        self._take("end")
        return super().cpu()

    def _take(self, part: str) -> None:
        if self.is_a_copy:
            self.clock.now_s += self.takes_s.get(part, 0.0)


def test_what_the_end_of_a_short_fit_takes_is_not_measured_as_steps(server: Server, clock: Clock) -> None:
    callback = probing_callback(server, energy_monitor=clock)
    fit(callback, Taking(clock, **{"set-up": 2.0, "end": 5.0}))
    entries = stored_probe(server, callback) or {}
    assert {size: entry["epoch_time"] for size, entry in entries.items()} == {8: 6.0, FIRST_SIZE: 3.0, 32: 1.5}
    assert {entry["time"] for entry in entries.values()} == {2.0 + 13 * 0.75 + 5.0}


def test_short_epochs_are_measured_to_the_end_of_the_last(
    server: Server, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probing, "MAX_SHARE", 1000.0)
    monkeypatch.setattr(probing, "MIN_MEASURE_S", 1000.0)
    callback = probing_callback(server, energy_monitor=clock)
    fit(callback, Taking(clock, end=5.0))
    epochs_s = {size: entry["epoch_time"] for size, entry in (stored_probe(server, callback) or {}).items()}
    assert epochs_s == pytest.approx({8: 6.0, FIRST_SIZE: 3.0, 32: 1.5})


@pytest.mark.parametrize(
    ("takes_s", "measured_sizes"),
    [
        ({"copying": 55.0}, set()),
        ({"set-up": 30.0}, {FIRST_SIZE}),
        ({"end": 30.0}, {FIRST_SIZE}),
        ({"set-up": 11.0}, {8, FIRST_SIZE}),
        ({"step": 5.0}, set()),
        ({"set-up": 61.0}, set()),
    ],
    ids=lambda value: ", ".join(map(str, value)),
)
def test_a_probe_that_takes_longer_than_estimated_stops_in_time_and_is_not_repeated(
    takes_s: dict[str, float],
    measured_sizes: set[int],
    server: Server,
    client: BsoClient,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    callback, module = probing_callback(server, energy_monitor=clock), Taking(clock, **takes_s)
    assert fit(callback, module).state.finished
    assert warnings(caplog, "longer than estimated")
    assert (stored_probe(server, callback) or {}).keys() == measured_sizes
    assert not is_wanted(client, callback)
    assert clock.now_s - 6.0 <= 60.0 + 5.75  # a step that has started may end after the deadline


@pytest.mark.usefixtures("_no_limits")
def test_only_a_run_that_has_converged_is_followed_by_a_probe(server: Server) -> None:
    module = Watched([0.5] * 10)
    with pytest.raises(ZeusBSOTrainFailError):
        fit(probing_callback(server), module)
    assert module.shared.sizes == {FIRST_SIZE}


def test_nothing_is_probed_unless_asked_for(server: Server, client: BsoClient) -> None:
    callback, module = ZeusBSOCallback(server.url, job(policy="gp-ucb")), Watched()
    fit(callback, module)
    assert module.shared.sizes == {FIRST_SIZE}
    assert is_wanted(client, callback)
