"""The learning rate scales with the batch size: a run equals a training whose rates are written for its batch size.

The rates here are written for batches of 4 rows, and the second run of each job gets 16: four times as many.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import LearningRateFinder, ModelCheckpoint
from lightning.pytorch.tuner import Tuner
from lightning.pytorch.utilities.exceptions import MisconfigurationException, SIGTERMException
from torch import optim
from torch.optim import lr_scheduler as lrs
from torch.optim.swa_utils import SWALR

from lightning_bso import BsoClient, ZeusBSOCallback
from tests.client.jobs import ScriptedMonitor, job, only_trial, start_run
from tests.databases import free_port
from tests.lightning.ranks import run_ranks
from tests.lightning.trainings import RESUMES_WITHIN_EPOCHS, ROWS, Module, fit, trainer
from tests.servers import Server

DEFAULT_SIZE, SIZE = 4, 16
EPOCHS = 10
STEPS = EPOCHS * ROWS // SIZE

Rates = list[list[dict[str, Any]]]
"""The values of each param group, by step."""
Schedule = Callable[[optim.Optimizer, float], Any]
"""Creates a scheduler. Its own learning rates, if it has any, are multiplied by a number."""


def both(rate: float, by: float) -> list[float]:
    """Return a rate for each of the two param groups."""
    return [rate * by, rate * by / 8]


SCHEDULES: dict[str, Schedule] = {
    "StepLR": lambda opt, by: lrs.StepLR(opt, 7, 0.3),
    "MultiStepLR": lambda opt, by: lrs.MultiStepLR(opt, [5, 20], 0.3),
    "ConstantLR": lambda opt, by: lrs.ConstantLR(opt, 0.3, 9),
    "LinearLR": lambda opt, by: lrs.LinearLR(opt, 0.1, 1.0, 9),
    "ExponentialLR": lambda opt, by: lrs.ExponentialLR(opt, 0.9),
    "PolynomialLR": lambda opt, by: lrs.PolynomialLR(opt, STEPS, 2.0),
    "LambdaLR": lambda opt, by: lrs.LambdaLR(opt, lambda step: 1 / (1 + step)),
    "MultiplicativeLR": lambda opt, by: lrs.MultiplicativeLR(opt, lambda step: 0.9 if step % 3 else 1.1),
    "CosineAnnealingLR": lambda opt, by: lrs.CosineAnnealingLR(opt, 13, eta_min=1e-3 * by),
    "CosineAnnealingWarmRestarts": lambda opt, by: lrs.CosineAnnealingWarmRestarts(opt, 5, 2, eta_min=1e-3 * by),
    "OneCycleLR": lambda opt, by: lrs.OneCycleLR(opt, both(0.5, by), total_steps=STEPS),
    "OneCycleLR in three phases": lambda opt, by: lrs.OneCycleLR(
        opt, both(0.5, by), total_steps=STEPS, three_phase=True, anneal_strategy="linear"
    ),
    "CyclicLR": lambda opt, by: lrs.CyclicLR(opt, both(0.01, by), both(0.5, by), 5, mode="triangular2"),
    "CyclicLR without momentum": lambda opt, by: lrs.CyclicLR(
        opt, 0.01 * by, 0.5 * by, 5, mode="exp_range", gamma=0.9, cycle_momentum=False
    ),
    "ReduceLROnPlateau": lambda opt, by: lrs.ReduceLROnPlateau(opt, "max", 0.5, 0, min_lr=both(0.02, by)),
    "SequentialLR": lambda opt, by: lrs.SequentialLR(
        opt, [lrs.LinearLR(opt, 0.1, 1.0, 5), lrs.CosineAnnealingLR(opt, 35, eta_min=1e-3 * by)], [5]
    ),
    "ChainedScheduler": lambda opt, by: lrs.ChainedScheduler(
        [lrs.ConstantLR(opt, 0.3, 9), lrs.ExponentialLR(opt, 0.9)], opt
    ),
    "schedulers in schedulers": lambda opt, by: lrs.ChainedScheduler(
        [
            lrs.SequentialLR(opt, [lrs.LinearLR(opt, 0.1, 1.0, 5), lrs.PolynomialLR(opt, 35)], [5]),
            lrs.StepLR(opt, 7, 0.5),
        ],
        opt,
    ),
    "SWALR": lambda opt, by: SWALR(opt, 0.02 * by, 15),
    "none": lambda opt, by: None,
}
every_schedule = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES.keys())


def sgd(groups: list[dict[str, Any]]) -> optim.Optimizer:
    """Create the optimizer whose momentum schedulers may change too."""
    return optim.SGD(groups, momentum=0.9)


class Scheduled(Module):
    """Trains two param groups with different learning rates, and records the rates at every step.

    Its rates and those of its schedule are multiplied by `by`. It converges in its last epoch.
    """

    def __init__(
        self,
        schedule: Schedule = SCHEDULES["none"],
        by: float = 1.0,
        make: Callable[[list[dict[str, Any]]], optim.Optimizer] = sgd,
        rate: Callable[[float], Any] = float,
    ) -> None:
        super().__init__()
        self.layer = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.Linear(1, 1))  # type: ignore[assignment]
        self.batch_size = SIZE  # unless a callback sets it
        self.schedule, self.by, self.make, self.rate = schedule, by, make, rate
        self.rates: Rates = []

    def configure_optimizers(self) -> Any:
        rates = (self.rate(rate) for rate in both(0.1, self.by))
        parts = self.layer.children()
        optimizer = self.make(
            [{"params": part.parameters(), "lr": rate} for part, rate in zip(parts, rates, strict=True)]
        )
        steps_per_epoch = ROWS // self.batch_size // self.trainer.world_size
        assert self.trainer.estimated_stepping_batches == EPOCHS * steps_per_epoch
        scheduler = self.schedule(optimizer, self.by)
        if scheduler is None:
            return optimizer
        interval = "epoch" if isinstance(scheduler, lrs.ReduceLROnPlateau) else "step"
        return [optimizer], [{"scheduler": scheduler, "interval": interval, "monitor": "val_acc"}]

    def on_train_start(self) -> None:
        for config in self.trainer.lr_scheduler_configs:  # schedulers and optimizers agree
            groups = config.scheduler.optimizer.param_groups
            assert config.scheduler.get_last_lr() == [group["lr"] for group in groups]

    def on_validation_epoch_end(self) -> None:
        self.log("val_acc", 1.0 if self.trainer.current_epoch == EPOCHS - 1 else 0.5)

    def on_before_optimizer_step(self, optimizer: optim.Optimizer) -> None:
        names = ("lr", "momentum", "betas")
        self.rates.append(
            [{name: number(group[name]) for name in names if name in group} for group in optimizer.param_groups]
        )


def number(value: Any) -> Any:
    """Return the number in a tensor. Return any other value unchanged."""
    return value.item() if isinstance(value, torch.Tensor) else value


@cache
def as_written(schedule: Schedule, by: float, **options: Any) -> Rates:
    """Return the rates of a run without the callback whose code multiplies its rates by `by`."""
    module = Scheduled(schedule, by, **options)
    trainer(max_epochs=EPOCHS).fit(module)
    assert len(module.rates) == STEPS
    return module.rates


def second_run(server: Server, rule: Any) -> ZeusBSOCallback:
    """Create a callback for the second run of a job. Its batch size is four times the default."""
    fields = job(batch_sizes=[DEFAULT_SIZE, SIZE], default_batch_size=DEFAULT_SIZE, beta_knob=None)
    start_run(server.url, job=fields).on_evaluate(1.0)
    return ZeusBSOCallback(server.url, fields, energy_monitor=ScriptedMonitor(), lr_scaling=rule)


def first_run(server: Server, rule: Any) -> ZeusBSOCallback:
    """Create a callback for the first run of a job. It gets the batch size that the rates are written for."""
    fields = job(batch_sizes=[DEFAULT_SIZE, SIZE], default_batch_size=DEFAULT_SIZE)
    return ZeusBSOCallback(server.url, fields, energy_monitor=ScriptedMonitor(), lr_scaling=rule)


def factor(callback: ZeusBSOCallback, module: Scheduled) -> float:
    """Fit a module, and return the factor between its learning rates and the written ones."""
    fit(callback, module)
    first = [group["lr"] for group in module.rates[0]]
    assert first == both(first[0], 1)
    return first[0] / 0.1


@every_schedule
def test_every_step_is_that_of_a_run_written_for_its_batch_size(schedule: Schedule, server: Server) -> None:
    callback, module = second_run(server, "linear"), Scheduled(schedule)
    fit(callback, module)
    assert callback.batch_size == SIZE
    assert module.rates == as_written(schedule, 4.0)


@every_schedule
def test_rates_that_are_tensors_are_scaled_too(schedule: Schedule, server: Server) -> None:
    module = Scheduled(schedule, rate=torch.tensor)
    fit(second_run(server, "linear"), module)
    assert module.rates == as_written(schedule, 4.0, rate=torch.tensor)
    assert all(isinstance(group["lr"], torch.Tensor) for group in module.trainer.optimizers[0].param_groups)


RESUMED_AT = 10 if RESUMES_WITHIN_EPOCHS else 12
"""A step in the middle of the third epoch, or at its end."""


class Preempted(Scheduled):
    """Gets a SIGTERM in its fourth epoch."""

    def on_train_batch_start(self, batch: Any, index: int) -> None:
        if self.trainer.global_step == 14:
            raise SIGTERMException


def resumed_rates(schedule: Schedule, by: float, folder: Path, *callbacks: pl.Callback) -> Rates:
    """Return the rates from step `RESUMED_AT` on of a run that is preempted and then resumed at that step.

    The first callback is for the preempted part, and the second for the resumed part.
    """
    within = {"every_n_train_steps": RESUMED_AT} if RESUMES_WITHIN_EPOCHS else {}
    checkpoint = ModelCheckpoint(folder, save_last=True, **within)
    with pytest.raises(SIGTERMException):
        trainer(*callbacks[:1], checkpoint, enable_checkpointing=True).fit(Preempted(schedule, by))
    module = Scheduled(schedule, by)
    trainer(*callbacks[1:]).fit(module, ckpt_path=folder / "last.ckpt")
    return module.rates


@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended")
@every_schedule
def test_a_run_that_is_resumed_has_the_rates_of_one_that_was_not(
    schedule: Schedule, server: Server, tmp_path: Path
) -> None:
    first = second_run(server, "linear")
    second = ZeusBSOCallback(server.url, first.job, energy_monitor=ScriptedMonitor(), lr_scaling="linear")
    rates = resumed_rates(schedule, 1.0, tmp_path / "scaled", first, second)
    assert first.batch_size == second.batch_size == SIZE
    assert rates == resumed_rates(schedule, 4.0, tmp_path / "written")
    if schedule is not SCHEDULES["ReduceLROnPlateau"]:  # Lightning skips one of its steps after resuming
        assert rates == as_written(schedule, 4.0)[RESUMED_AT:]


@pytest.mark.parametrize(("rule", "times"), [("linear", 4.0), ("sqrt", 2.0), (None, 1.0)])
def test_the_rule_says_how_far_the_rate_follows(rule: str | None, times: float, server: Server) -> None:
    assert factor(second_run(server, rule), Scheduled()) == pytest.approx(times)


@pytest.mark.parametrize(
    ("make", "times"),
    [(optim.SGD, 4.0), (optim.ASGD, 4.0)]
    + [(make, 2.0) for make in (optim.Adam, optim.AdamW, optim.NAdam, optim.RAdam, optim.Adamax, optim.RMSprop)],
)
def test_auto_goes_by_the_optimizer(make: Any, times: float, server: Server) -> None:
    assert factor(second_run(server, "auto"), Scheduled(make=make)) == pytest.approx(times)


def test_the_momentum_of_adam_is_cycled_as_ever(server: Server) -> None:
    schedule, adam = SCHEDULES["OneCycleLR"], optim.Adam
    module = Scheduled(schedule, make=adam)
    fit(second_run(server, "auto"), module)
    assert module.rates == as_written(schedule, 2.0, make=adam)
    assert len({group["betas"][0] for groups in module.rates for group in groups}) > 1


def test_auto_goes_by_each_optimizer_of_several(server: Server) -> None:
    class Several(Scheduled):
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False
            self.rates_seen: list[float] = []

        def configure_optimizers(self) -> Any:
            first, second = (part.parameters() for part in self.layer.children())
            linear, root = optim.SGD(first, lr=0.1), optim.Adam(second, lr=0.1)
            schedule = lrs.LambdaLR(linear, lambda step: 0.5**step)
            schedules = [schedule, schedule, lrs.ExponentialLR(root, 0.5)]  # the repeated schedule is scaled once
            return [
                {"optimizer": each.optimizer, "lr_scheduler": {"scheduler": each, "interval": "step"}}
                for each in schedules
            ]

        def training_step(self, batch: Any, index: int) -> None:  # type: ignore[override]
            first, *_, last = self.optimizers()
            self.rates_seen += [group["lr"] for optimizer in (first, last) for group in optimizer.param_groups]
            self.manual_backward(super().training_step(batch, index))
            for optimizer in (first, last):
                optimizer.step()
                optimizer.zero_grad()
            schedulers = self.lr_schedulers()
            schedulers[0].step()
            schedulers[2].step()

    module = Several()
    fit(second_run(server, "auto"), module)
    assert module.rates_seen[:6] == pytest.approx([0.4, 0.2, 0.2, 0.1, 0.1, 0.05])


def test_a_param_group_that_joins_later_has_the_scaled_default(server: Server) -> None:
    class Growing(Scheduled):
        def configure_optimizers(self) -> Any:
            optimizer = optim.SGD(self.layer[0].parameters(), lr=0.1)
            scheduler = lrs.ReduceLROnPlateau(optimizer, "max", 0.1, 0, min_lr=0.05)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": "val_acc"}}

        def on_train_start(self) -> None:
            self.trainer.optimizers[0].add_param_group({"params": self.layer[1].parameters()})

    module = Growing()
    fit(second_run(server, "linear"), module)
    assert [group["lr"] for group in module.rates[0]] == [0.4, 0.4]
    assert [group["lr"] for group in module.rates[-1]] == [0.2, 0.2]


def test_a_fit_after_another_is_not_scaled_twice(server: Server) -> None:
    class SharedRate(Scheduled):
        def __init__(self) -> None:
            super().__init__()
            self.rate_tensor = torch.tensor(0.1)

        def configure_optimizers(self) -> Any:
            return optim.SGD(self.parameters(), lr=self.rate_tensor)

    callback, module = second_run(server, "linear"), SharedRate()
    first_rates = []
    for _ in range(2):
        module.rates.clear()
        fit(callback, module)
        first_rates.append((callback.batch_size, module.rates[0][0]["lr"]))
    assert first_rates == [(SIZE, pytest.approx(0.4)), (DEFAULT_SIZE, pytest.approx(0.1))]


def test_every_process_scales_by_the_batch_size_of_all(server: Server, tmp_path: Path) -> None:
    callback = second_run(server, "linear")

    def training(_: int) -> dict[str, Any]:
        module = Scheduled()
        running = trainer(callback, devices=2, strategy="ddp", max_epochs=EPOCHS)
        running.fit(module)
        return {"batch_size": module.batch_size, "rates": [group["lr"] for group in module.rates[-1]]}

    ranks = run_ranks(tmp_path, training)
    assert [rank.exit_code for rank in ranks] == [0, 0], ranks[0].stderr
    assert [rank.result for rank in ranks] == [{"batch_size": SIZE // 2, "rates": both(0.4, 1)}] * 2


def test_a_run_with_the_default_batch_size_is_left_as_it_is_written(server: Server) -> None:
    callback = first_run(server, "linear")
    assert factor(callback, Scheduled()) == 1.0
    assert callback.batch_size == DEFAULT_SIZE


def test_a_callback_that_is_off_scales_nothing() -> None:
    callback = ZeusBSOCallback(None, job(batch_sizes=[DEFAULT_SIZE, SIZE]), lr_scaling="linear")
    assert factor(callback, Scheduled()) == 1.0


def test_a_rate_found_beforehand_is_scaled_as_one_that_is_written(server: Server, tmp_path: Path) -> None:
    class Searched(Scheduled):
        lr = 0.1

        def configure_optimizers(self) -> Any:
            return optim.SGD(self.parameters(), lr=self.lr)

    callback, module = second_run(server, "linear"), Searched()
    running = trainer(callback, default_root_dir=tmp_path)
    Tuner(running).lr_find(module, num_training=5, min_lr=1e-4, max_lr=1e-2)
    module.lr = 0.1
    module.rates.clear()
    running.fit(module)
    assert module.rates[0][0]["lr"] == 0.4


class Timm:
    """A scheduler that is not torch's."""

    def __init__(self, optimizer: optim.Optimizer) -> None:
        self.optimizer = optimizer
        self.base_values = [group["lr"] for group in optimizer.param_groups]

    def step(self, *_: Any) -> None:
        """Change nothing."""

    def state_dict(self) -> dict[str, Any]:
        """Return an empty state."""
        return {}

    load_state_dict = step


class Foreign(Scheduled):
    """Uses the scheduler that is not torch's."""

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        scheduler.step()


@pytest.mark.parametrize(
    ("module", "others", "message"),
    [
        (Scheduled(make=optim.Adagrad), [], r"learning rate of Adagrad.*supports SGD.*'linear' or 'sqrt'"),
        (Foreign(lambda opt, by: Timm(opt)), [], "schedule of Timm.*scale in configure_optimizers"),
        (
            Scheduled(),
            [LearningRateFinder(num_training_steps=2, update_attr=False)],
            "LearningRateFinder.*Remove one of the two",
        ),
    ],
    ids=["an optimizer that auto does not support", "a scheduler that is not torch's", "a search for the rate"],
)
def test_what_cannot_be_scaled_is_refused_in_the_first_run_and_ends_its_trial(
    module: Scheduled,
    others: list[pl.Callback],
    message: str,
    server: Server,
    client: BsoClient,
    tmp_path: Path,
) -> None:
    callback = first_run(server, "auto")
    running = trainer(callback, *others, default_root_dir=tmp_path)
    with pytest.raises(MisconfigurationException, match=message):
        running.fit(module)
    assert running.global_step == 0
    trial = only_trial(client, callback.job.job_id_prefix)
    assert trial.status == "Failed"
    assert str(trial.outcome).startswith("MisconfigurationException: lr_scaling")


def test_an_unknown_rule_is_refused_before_any_call() -> None:
    with pytest.raises(MisconfigurationException, match=r"lr_scaling='cubic'.*'linear', 'sqrt', 'auto', None"):
        ZeusBSOCallback(f"http://127.0.0.1:{free_port()}", job(), lr_scaling="cubic")  # type: ignore[arg-type]
