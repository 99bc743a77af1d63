"""A fit that runs out of memory goes on in smaller parts of its batches, and the job remembers how much fits."""

import csv
import weakref
from collections.abc import Iterator, Sequence
from multiprocessing import active_children
from pathlib import Path
from typing import Any
from uuid import uuid4

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from lightning_bso import BsoClient, ZeusBSOCallback
from tests.client.jobs import ScriptedMonitor, job, number_of_trials, only_trial
from tests.client.scripted import Reply, ScriptedServer, handed_on, in_turn
from tests.lightning.ranks import Rank, RankModule, run_ranks
from tests.lightning.trainings import FIRST_SIZE, ROWS, Module, fit, reported_epochs, rows, trainer
from tests.servers import Server

pytestmark = pytest.mark.filterwarnings("ignore:.*max_epochs", "ignore:Out of memory in training")

STEPS = ROWS // FIRST_SIZE
"""Optimizer steps of an epoch with the first batch size, in whatever parts."""


class Small(Module):
    """A device takes `fits` rows at a time, from an epoch and a step on. Before, it takes any number."""

    fits = 4
    since = (0, 0)

    def has_room(self, samples: int) -> bool:
        """Whether these samples fit. Also lists what was tried."""
        now = (self.trainer.current_epoch, self.trainer.global_step)
        self.tried = [*getattr(self, "tried", []), samples]
        return samples <= self.fits or now < self.since


class SmallForward(Small):
    """Runs out of memory in the forward pass."""

    def training_step(self, batch: Sequence[torch.Tensor], index: int) -> torch.Tensor:
        if not self.has_room(len(batch[0])):
            raise torch.OutOfMemoryError("the forward pass does not fit")
        return super().training_step(batch, index)


class SmallBackward(Small):
    """Runs out of memory in the backward pass, after the layer has its gradients."""

    def training_step(self, batch: Sequence[torch.Tensor], index: int) -> torch.Tensor:
        inputs = batch[0].clone().requires_grad_()
        inputs.register_hook(self._allocate)
        return super().training_step([inputs], index)

    def _allocate(self, gradient: torch.Tensor) -> None:
        if not self.has_room(len(gradient)):
            raise torch.OutOfMemoryError("the backward pass does not fit")


def automatic(server: Server | ScriptedServer, fields: dict[str, Any] | None = None, **options: Any) -> Any:
    """Create a callback that finds by itself how much a device takes at a time."""
    return ZeusBSOCallback(
        server.url,
        fields or job(),
        **{
            "energy_monitor": ScriptedMonitor(),
            "max_device_batch_size": "auto",
            "accumulate": "auto",
            **options,
        },
    )


def weights(module: pl.LightningModule) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])


def trained(kind: type[Module], callback: pl.Callback, **options: Any) -> Any:
    """Train for two epochs from a fixed seed, and return the module."""
    torch.manual_seed(0)
    module = kind()
    fit(callback, module, max_epochs=2, **options)
    return module


@pytest.mark.parametrize("kind", [SmallForward, SmallBackward])
def test_the_same_trial_goes_on_in_parts_and_converges(
    server: Server, client: BsoClient, kind: type[Small], caplog: pytest.LogCaptureFixture
) -> None:
    fields, module = job(), kind([0.5, 1.0])
    running = fit(automatic(server, fields), module)
    assert "with 8 samples at a time. The fit goes on with 4 at a time, in 4 parts" in caplog.text
    assert module.tried[:3] == [16, 8, 4]
    assert set(module.tried[3:]) == {4}
    assert running.global_step == 2 * STEPS
    trial = only_trial(client, fields["job_id_prefix"])
    assert (trial.batch_size, trial.accumulate_grad_batches, trial.converged) == (FIRST_SIZE, 4, True)
    assert (trial.current_epoch, trial.energy) == (2, 20.0)  # the failed attempts are in the first of two windows


@pytest.mark.parametrize("options", [{}, {"accumulate_grad_batches": 2}, {"limit_train_batches": 3}], ids=str)
@pytest.mark.parametrize("kind", [SmallForward, SmallBackward])
def test_the_training_is_that_of_a_run_that_knew_the_limit(
    server: Server, kind: type[Small], options: dict[str, Any]
) -> None:
    went_on = trained(kind, automatic(server), **options)
    knew = trained(kind, automatic(server, max_device_batch_size=4), **options)
    assert went_on.rows_seen[-len(knew.rows_seen) :] == knew.rows_seen
    assert not torch.equal(weights(knew), weights(trained(Module, ZeusBSOCallback(None, job()), max_steps=0)))
    torch.testing.assert_close(weights(went_on), weights(knew), rtol=0, atol=0)


def test_memory_that_runs_out_between_two_accumulated_batches_changes_no_number_of_steps(server: Server) -> None:
    class SecondBatch(SmallForward):
        def has_room(self, samples: int) -> bool:
            return super().has_room(samples) or len(self.tried) == 1

    module = SecondBatch([0.5, 1.0])
    running = fit(automatic(server), module, accumulate_grad_batches=2)
    assert module.tried[:4] == [FIRST_SIZE, FIRST_SIZE, FIRST_SIZE // 2, 4]
    assert running.global_step == STEPS  # two epochs, two batches a step
    assert running.accumulate_grad_batches == 2


def test_the_next_run_of_the_job_starts_with_what_fits(server: Server, client: BsoClient) -> None:
    fields = job()
    fit(automatic(server, fields), SmallForward([1.0]))
    module = SmallForward([1.0])
    callback = automatic(server, fields)
    fit(callback, module)
    assert (callback.trial_number, callback.batch_size) == (2, 8)
    assert set(module.tried) == {4}


def test_another_job_starts_with_the_whole_batch(server: Server) -> None:
    fit(automatic(server), SmallForward([1.0]))
    module = Module([1.0])
    fit(automatic(server), module)
    assert module.sizes_seen == {FIRST_SIZE}


def test_the_limit_is_stored_before_the_training_goes_on(server: Server, client: BsoClient) -> None:
    fields = job()

    class Killed(SmallForward):
        def training_step(self, batch: Sequence[torch.Tensor], index: int) -> torch.Tensor:
            if len(batch[0]) < FIRST_SIZE:
                raise KeyboardInterrupt
            return super().training_step(batch, index)

    callback = automatic(server, fields)
    with pytest.raises(SystemExit):
        fit(callback, Killed())
    assert client.ask(callback.job_id, "another run").max_device_batch_size == 8


def test_a_size_that_never_fits_has_failed(server: Server, client: BsoClient) -> None:
    fields, module = job(), SmallForward()
    module.fits = 0
    running = trainer(automatic(server, fields))
    with pytest.raises(torch.OutOfMemoryError, match="forward pass"):
        running.fit(module)
    assert module.tried == [16, 8, 4, 2, 1]
    trial = only_trial(client, fields["job_id_prefix"])
    assert (trial.outcome_code, trial.converged, trial.accumulate_grad_batches) == ("out_of_memory", False, 16)
    assert (running.accumulate_grad_batches, running.limit_train_batches) == (1, 1.0)


def test_the_trainer_is_given_back_as_it_was(server: Server) -> None:
    running = trainer(automatic(server))
    advance = running.fit_loop.epoch_loop.advance
    for _ in range(2):
        running.fit(SmallForward([1.0]))
        assert (running.accumulate_grad_batches, running.limit_train_batches) == (1, 1.0)
        assert running.fit_loop.epoch_loop.advance == advance


class Counted(SmallForward):
    """Has a scheduler that raises after its number of steps, and counts the hooks."""

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=1e-3)
        self.steps = int(self.trainer.estimated_stepping_batches)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=self.steps)
        self.hooks: list[str] = []
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_train_start(self) -> None:
        self.hooks.append("train")

    def on_train_epoch_start(self) -> None:
        self.hooks.append("epoch")

    def on_validation_start(self) -> None:
        if not self.trainer.sanity_checking:
            self.hooks.append("validation")

    def on_sanity_check_start(self) -> None:
        self.hooks.append("sanity")


@pytest.mark.parametrize("since", [(0, 0), (0, 2), (1, STEPS), (1, STEPS + 3), (2, 0)])
def test_the_epoch_goes_on_at_the_step_that_failed(server: Server, since: tuple[int, int]) -> None:
    fields, module = job(), Counted()
    module.since = since
    running = fit(automatic(server, fields), module, max_epochs=3)
    assert running.global_step == module.steps == 3 * STEPS
    assert running.current_epoch == 3
    assert module.hooks == ["train", *["epoch", "validation"] * 3]
    assert reported_epochs(server, fields["job_id_prefix"]) == [1, 2, 3]
    steps_before = since[1] if since[0] < 2 else 2 * STEPS
    assert module.tried == [16] * steps_before + [16, 8] + [4] * 4 * (3 * STEPS - steps_before)


def test_nothing_of_the_step_that_failed_stays_in_memory(server: Server) -> None:
    class Watched(Small):
        """Runs out of memory when it has its gradients."""

        seen: tuple[bool, bool] | None = None

        def train_dataloader(self) -> DataLoader[Any]:
            if self.batch_size == FIRST_SIZE // 2:
                self.seen = self.workspace() is not None, self.layer.weight.grad is not None
            return super().train_dataloader()

        def training_step(self, batch: Sequence[torch.Tensor], index: int) -> torch.Tensor:
            self.samples = len(batch[0])
            return super().training_step(batch, index)

        def on_after_backward(self) -> None:
            workspace = torch.zeros(self.samples)
            self.workspace = weakref.ref(workspace)
            if not self.has_room(self.samples):
                raise torch.OutOfMemoryError("no room after the backward pass")

    module = Watched([1.0])
    fit(automatic(server), module)
    assert module.seen == (False, False)


def test_the_workers_of_the_old_loader_end(server: Server) -> None:
    class WithWorker(SmallForward):
        def train_dataloader(self) -> DataLoader[Any]:
            return DataLoader(rows(), batch_size=self.batch_size, num_workers=1)

        def training_step(self, batch: Sequence[torch.Tensor], index: int) -> torch.Tensor:
            self.processes = {*getattr(self, "processes", ()), len(active_children())}
            return super().training_step(batch, index)

    before, module = len(active_children()), WithWorker([1.0])
    fit(automatic(server), module)
    assert module.processes == {before + 1}


def test_an_interval_in_batches_counts_parts_from_the_step_that_failed(server: Server) -> None:
    class Watched(SmallForward):
        def on_validation_start(self) -> None:
            self.validated = [*getattr(self, "validated", []), self.trainer.global_step]

    module = Watched()
    fit(automatic(server), module, max_epochs=2, val_check_interval=8, check_val_every_n_epoch=None)
    assert module.validated == [0, 2, 4, 6, 8]


def test_a_run_resumes_within_an_epoch_and_then_goes_on(server: Server, tmp_path: Path) -> None:
    class Interrupted(Counted):
        def on_train_batch_start(self, batch: Any, index: int) -> None:
            if self.trainer.global_step == STEPS + 3 and self.since[0] > 1:
                raise KeyboardInterrupt

    def resume(since: tuple[int, int], **options: Any) -> Counted:
        module = Interrupted()
        module.since = since
        saving = ModelCheckpoint(tmp_path, save_last=True, every_n_train_steps=2, save_top_k=-1)
        running = trainer(
            automatic(server, fields), saving, max_epochs=3, val_check_interval=0.5, enable_checkpointing=True
        )
        running.fit(module, **options)
        return module

    fields = job()
    with pytest.raises(SystemExit):
        resume((9, 0))
    module = resume((0, 0), ckpt_path=tmp_path / "last.ckpt")
    assert module.tried == [16, 8] + [4] * 4 * (2 * STEPS - 2)
    assert module.trainer.global_step == module.steps == 3 * STEPS


@pytest.mark.parametrize(
    "options",
    [
        {"limit_train_batches": 3},
        {"limit_train_batches": 3, "accumulate_grad_batches": 2},
        {"limit_train_batches": 0.5},
        {},
    ],
)
@pytest.mark.parametrize("drop_last", [True, False])
def test_an_epoch_keeps_its_number_of_steps(server: Server, options: dict[str, Any], drop_last: bool) -> None:
    class Uneven(Counted):
        def train_dataloader(self) -> DataLoader[Any]:
            data = TensorDataset(torch.arange(ROWS + 5).float().unsqueeze(1))
            return DataLoader(data, batch_size=self.batch_size, drop_last=drop_last, shuffle=True)

    module = Uneven()
    running = fit(automatic(server), module, max_epochs=2, **options)
    assert running.global_step == module.steps
    assert 4 in module.tried


def test_loaders_given_to_fit_are_rebuilt_again(server: Server) -> None:
    module = SmallForward([1.0])
    fit(automatic(server), module, DataLoader(rows(), batch_size=2))
    assert module.sizes_seen == {4}


class Endless(IterableDataset[Any]):
    """A stream without a length."""

    def __iter__(self) -> Iterator[torch.Tensor]:
        return iter([torch.tensor([float(number)]) for number in range(ROWS)])


def test_a_stream_goes_on_too(server: Server, client: BsoClient) -> None:
    class Streaming(SmallForward):
        def train_dataloader(self) -> DataLoader[Any]:
            return DataLoader(Endless(), batch_size=self.batch_size, collate_fn=lambda rows: [torch.stack(rows)])

    fields, module = job(), Streaming([0.5, 1.0])
    fit(automatic(server, fields), module)
    assert (module.sizes_seen, only_trial(client, fields["job_id_prefix"]).converged) == ({4}, True)


@pytest.mark.parametrize("check", ["loader", "batch"])
def test_a_loader_that_keeps_its_batch_size_is_an_error(server: Server, check: Any) -> None:
    class Keeping(SmallForward):
        def train_dataloader(self) -> DataLoader[Any]:
            if not hasattr(self, "kept"):
                self.kept = super().train_dataloader()
            return self.kept

    with pytest.raises(MisconfigurationException, match="batch size 8 did not reach"):
        fit(automatic(server, check=check), Keeping())


def test_a_progress_bar_a_logger_and_checkpoints_go_on(server: Server, tmp_path: Path) -> None:
    class Logging(Counted):
        def training_step(self, batch: Sequence[torch.Tensor], index: int) -> torch.Tensor:
            self.log("rows", float(len(batch[0])), prog_bar=True, on_step=True, on_epoch=True)
            return super().training_step(batch, index)

    module = Logging()
    module.since = (1, STEPS + 1)
    logger, saving = CSVLogger(tmp_path), ModelCheckpoint(tmp_path, save_top_k=-1)
    options = {"logger": logger, "log_every_n_steps": 1, "enable_progress_bar": True, "enable_checkpointing": True}
    trainer(automatic(server), saving, max_epochs=3, **options).fit(module)
    with (Path(logger.log_dir) / "metrics.csv").open() as file:
        values = [(int(row["step"]), float(row["rows_step"])) for row in csv.DictReader(file) if row["rows_step"]]
    assert values == [(step, 16.0 if step <= STEPS else 4.0) for step in range(3 * STEPS)]
    assert sorted(path.stem for path in tmp_path.glob("*.ckpt")) == [
        f"epoch={n}-step={STEPS * (n + 1)}" for n in range(3)
    ]


def test_an_unreachable_server_does_not_keep_a_fit_from_going_on(
    server: Server, client: BsoClient, scripted: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    class Away(SmallForward):
        def training_step(self, batch: Sequence[torch.Tensor], index: int) -> torch.Tensor:
            scripted.script = handed_on(server.url) if len(batch[0]) == 4 else in_turn(Reply(503))
            return super().training_step(batch, index)

    scripted.script = handed_on(server.url)
    fields = job()
    fit(automatic(scripted, fields), Away([1.0]))
    trial = only_trial(client, fields["job_id_prefix"])
    assert (trial.converged, trial.accumulate_grad_batches) == (True, 4)
    assert "will not know of the lack of memory" in caplog.text


class FullOptimizer(torch.optim.SGD):
    """Runs out of memory once the gradients are there."""

    def step(self, closure: Any = None) -> Any:
        closure()
        raise torch.OutOfMemoryError("no room for the optimizer's state")


class SmallElsewhere(Module):
    """Has no room for the state of the optimizer."""

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return FullOptimizer(self.parameters())


class SmallValidation(Module):
    """Has no room for a validation."""

    def validation_step(self, batch: Sequence[torch.Tensor], _: int) -> None:
        if not self.trainer.sanity_checking:
            raise torch.OutOfMemoryError("the validation does not fit")


@pytest.mark.parametrize("kind", [SmallElsewhere, SmallValidation])
def test_what_smaller_parts_cannot_cure_has_failed(server: Server, client: BsoClient, kind: type) -> None:
    fields, module = job(), kind()
    with pytest.raises(torch.OutOfMemoryError):
        fit(automatic(server, fields), module)
    trial = only_trial(client, fields["job_id_prefix"])
    assert (trial.outcome_code, module.sizes_seen) == ("out_of_memory", {FIRST_SIZE})


@pytest.mark.parametrize("options", [{}, {"max_device_batch_size": 8, "accumulate": "auto"}])
def test_without_auto_out_of_memory_has_failed(server: Server, client: BsoClient, options: dict[str, Any]) -> None:
    fields, module = job(), SmallForward()
    with pytest.raises(torch.OutOfMemoryError):
        fit(ZeusBSOCallback(server.url, fields, energy_monitor=ScriptedMonitor(), **options), module)
    assert len(module.tried) == 1
    assert only_trial(client, fields["job_id_prefix"]).outcome_code == "out_of_memory"


def test_manual_optimization_is_refused(server: Server, client: BsoClient) -> None:
    fields, module = job(), Module()
    module.automatic_optimization = False
    with pytest.raises(MisconfigurationException, match="optimizes manually"):
        fit(automatic(server, fields), module)
    assert number_of_trials(client, fields["job_id_prefix"]) == 0


def test_options_that_make_no_sense_are_refused() -> None:
    with pytest.raises(MisconfigurationException, match="requires accumulate='auto'"):
        ZeusBSOCallback(None, job(), max_device_batch_size="auto")
    with pytest.raises(MisconfigurationException, match="'all' is not a valid value"):
        ZeusBSOCallback(None, job(), max_device_batch_size="all", accumulate="auto")  # type: ignore[arg-type]


def test_a_program_that_asks_early_builds_its_own_loaders(server: Server) -> None:
    with pytest.raises(MisconfigurationException, match="exclude each other"), automatic(server).run():
        pass


class SmallRank(RankModule):
    """A device of two takes two rows at a time."""

    def training_step(self, batch: Sequence[torch.Tensor], index: int) -> torch.Tensor:
        if len(batch[0]) > 2:
            raise torch.OutOfMemoryError("this rank does not fit")
        return super().training_step(batch, index)


class LargeRank(RankModule):
    """Takes any batch."""


def test_two_ranks_end_without_a_verdict_and_the_next_launch_fits(
    server: Server, client: BsoClient, tmp_path: Path
) -> None:
    fields = job(job_id="ranks-" + uuid4().hex, job_id_prefix="ranks-")

    def launch(number: int) -> list[Rank]:
        def training(rank: int) -> dict[str, Any]:
            callback, module = automatic(server, fields), (LargeRank, SmallRank)[rank]([1.0])
            fit(callback, module, devices=2, strategy="ddp")
            return {"sizes": sorted(module.sizes_seen), "trial": callback.trial_number}

        folder = tmp_path / str(number)
        folder.mkdir()
        return run_ranks(folder, training)

    for number, (tried, limit) in enumerate([(8, 4), (4, 2)], 1):
        broken = launch(number)
        assert all(rank.exit_code for rank in broken)
        assert f"A device took {tried} samples at a time. Launch the training again" in broken[1].stderr
        trial = client.list_trials(fields["job_id"]).trials[-1]
        assert (trial.outcome_code, trial.converged) == ("ended", None)
        assert trial.outcome == "OutOfMemoryError: this rank does not fit"
        assert f"at most {limit} at a time" in broken[1].stderr
    fitting = launch(3)
    assert [rank.exit_code for rank in fitting] == [0, 0], fitting[1].stderr
    assert [rank.result for rank in fitting] == [{"sizes": [2], "trial": 3}] * 2
    assert client.list_trials(fields["job_id"]).trials[-1].converged
