"""Zeus' power-limit optimizer at Lightning's moments: finds the GPUs' cheapest power limit as the training runs.

What it measures and how it picks is Zeus' own; here is when, on which GPUs, and that all is put back.
Nothing here knows of the batch-size optimizer: its callback may be there, or not.
"""

import re
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import lightning.pytorch as pl
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn
from typing_extensions import override

from lightning_bso.energy import (
    EnergyMonitor,
    default_power_limits_mw,
    describe_gpus,
    gpu_indices,
    make_zeus_monitor,
    power_limits_mw,
    put_back_power_limits,
)
from lightning_bso.errors import EnergyUnavailable
from lightning_bso.lightning.dataloading import loader_batch_sizes

Result = TypeVar("Result")


class ZeusPowerLimitCallback(pl.Callback):
    """Trains under the power limit of the GPUs that costs least, by Zeus' GlobalPowerLimitOptimizer.

    Under every limit from the highest down it warms up for some steps and measures some more, and then stays at
    the one with the lowest eta · energy + (1 - eta) · highest limit · time. That takes permission to set limits
    (root, CAP_SYS_ADMIN, or Zeus' daemon); without it, and without a GPU, it says so and stands aside. At the end
    of the fit, however it comes, the GPUs have the limits again that they had before.

    Example:
        >>> Trainer(callbacks=[ZeusBSOCallback(url, job), ZeusPowerLimitCallback(profile_folder="power_limits")])

    Args:
        eta_knob: weight of energy against time, 0 to 1; that of the job, if there is one.
        profile_folder: where to keep what was measured, one file for each GPU model, number of processes and batch
            size of a device, so that the next runs need not measure again; of one training only. None: nowhere.
        power_limit_step_w: from one limit to the next, in watts.
        wait_steps: steps before anything is done.
        warmup_steps: steps under a limit before it is measured.
        profile_steps: steps that are measured under a limit. With `warmup_steps` they must fit between two validations.
        energy_monitor: a ZeusMonitor of this process's GPU; None: made.

    Raises:
        MisconfigurationException: an argument is out of its range.
    """

    def __init__(
        self,
        eta_knob: float = 0.5,
        *,
        profile_folder: str | Path | None = None,
        power_limit_step_w: int = 25,
        wait_steps: int = 1,
        warmup_steps: int = 10,
        profile_steps: int = 40,
        energy_monitor: EnergyMonitor | None = None,
    ) -> None:
        if not 0 <= eta_knob <= 1:
            raise MisconfigurationException(f"eta_knob={eta_knob} is not within 0 and 1")
        least = {"power_limit_step_w": 1, "wait_steps": 0, "warmup_steps": 1, "profile_steps": 1}
        given = {
            "power_limit_step_w": power_limit_step_w,
            "wait_steps": wait_steps,
            "warmup_steps": warmup_steps,
            "profile_steps": profile_steps,
        }
        for name, value in given.items():
            if value < least[name]:
                raise MisconfigurationException(f"{name}={value} is too small; give {least[name]} or more")
        self.eta_knob = eta_knob
        self.profile_folder = None if profile_folder is None else Path(profile_folder)
        self.power_limit_step_w = power_limit_step_w
        self.wait_steps = wait_steps
        self.warmup_steps = warmup_steps
        self.profile_steps = profile_steps
        self.energy_monitor = energy_monitor
        self._limits: Any = None  # Zeus' optimizer
        self._gpu_indices: list[int] = []  # of GPUs whose limits may be other than they were
        self._limits_before_mw: dict[int, int] = {}
        self.power_limit_w: int | None = None
        """The limit that was found to cost least; None before."""

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.power_limit_w = None
        steps = min(trainer.num_training_batches, trainer.val_check_batch or float("inf"))
        needed = self.warmup_steps + self.profile_steps + 1
        if steps < needed:
            rank_zero_warn(
                f"Power limits are left as they are: to measure one takes {needed} steps without a validation in "
                f"between, and there are only {steps}. Lower warmup_steps or profile_steps"
            )
            return
        found = self._on_all(trainer, lambda: self._look_around(trainer))
        if found is None:
            return
        monitor, path = found
        known = path is not None and path.exists()
        known_to_all = trainer.strategy.reduce_boolean_decision(known)
        first_of_node = trainer.local_rank == 0  # the one that writes
        kept = path if known_to_all or (first_of_node and not known) else None
        limits = self._on_all(trainer, lambda: self._take_gpus(trainer, monitor, kept))
        if limits is not None:
            self._settle(trainer, limits)

    @override
    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, index: int) -> None:
        limits = self._limits
        if limits is None or self.power_limit_w is not None:
            return
        try:
            limits.on_step_begin()
        except Exception as error:
            if trainer.world_size > 1 and not _is_settled(limits):
                raise  # the other processes wait for what this one was about to tell
            rank_zero_warn(f"Power limits are no longer looked for: {type(error).__name__}: {error}")
            if not _is_settled(limits):
                self._put_back()
                return
        self._settle(trainer, limits)

    @override
    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # What is being measured is a part of training; it is measured anew afterwards.
        if self._limits is not None and not trainer.sanity_checking:
            self._limits.on_epoch_end()

    @override
    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._limits is not None:
            self._limits.on_epoch_end()

    @override
    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._put_back()

    @override
    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._put_back()

    def _on_all(self, trainer: pl.Trainer, action: Callable[[], Result]) -> Result | None:
        """What an action comes to; None if it fails in any process, which is said and changes nothing."""
        problem = "another process cannot set them"
        try:
            result = action()
        except Exception as error:  # whatever a driver comes up with must not keep the training from running
            result, problem = None, f"{type(error).__name__}: {error}"
        # All or none: what the processes measure is added up, and one that is missing would be waited for.
        if trainer.strategy.reduce_boolean_decision(result is not None):
            return result
        rank_zero_warn(f"Power limits are left as they are: {problem}")
        self._put_back()
        return None

    def _look_around(self, trainer: pl.Trainer) -> tuple[Any, Path | None]:
        """The monitor of this process's GPU, and the file for what is measured with it."""
        indices = gpu_indices(trainer.strategy.root_device)
        if self.energy_monitor is None and not indices:
            raise EnergyUnavailable("this training uses no GPU")
        monitor = self.energy_monitor or make_zeus_monitor(indices)
        sizes = loader_batch_sizes(trainer)
        if self.profile_folder is None or not sizes:
            return monitor, None
        self.profile_folder.mkdir(parents=True, exist_ok=True)
        model = re.sub(r"[^\w.]+", "-", describe_gpus(monitor.gpu_indices).gpu_model)
        return monitor, self.profile_folder / f"{model}_{trainer.world_size}x{'+'.join(map(str, sorted(sizes)))}.json"

    def _take_gpus(self, trainer: pl.Trainer, monitor: Any, profile: Path | None) -> Any:
        """Zeus' optimizer at work on the GPUs of a monitor."""
        from zeus.optimizer.power_limit import GlobalPowerLimitOptimizer, ZeusCost

        known = profile is not None and profile.exists()
        self._gpu_indices = list(monitor.gpu_indices)
        self._limits_before_mw = power_limits_mw(self._gpu_indices)
        self._warn_of_limits_that_are_set()
        try:
            self._limits = GlobalPowerLimitOptimizer(
                monitor,
                ZeusCost(self.eta_knob, trainer.world_size * len(self._gpu_indices)),
                self.wait_steps,
                self.warmup_steps,
                self.profile_steps,
                self.power_limit_step_w,
                profile,
            )
        except ValueError as error:
            if known:
                raise ValueError(f"{profile} cannot be read, remove it: {error}") from error
            raise
        return self._limits

    def _warn_of_limits_that_are_set(self) -> None:
        """An administrator's are meant, those of a killed process are not; nobody can tell which they are."""
        for index, default_mw in default_power_limits_mw(self._gpu_indices).items():
            found_mw = self._limits_before_mw.get(index, default_mw)
            if found_mw != default_mw:
                warnings.warn(  # in every process, as each has a GPU of its own
                    f"GPU {index} was found limited to {found_mw / 1000:g} W, not to its default of "
                    f"{default_mw / 1000:g} W, and gets that again after the fit. If nobody wants it, a training that "
                    f"was killed has left it: `nvidia-smi -i GPU -pl {default_mw / 1000:g}` resets it",
                    stacklevel=2,
                )

    def _settle(self, trainer: pl.Trainer, limits: Any) -> None:
        """Note the limit that has been found, once it has."""
        if not _is_settled(limits):
            return
        self.power_limit_w = limits.state.optimal_power_limit // 1000
        for logger in trainer.loggers:
            logger.log_metrics({"zeus_power_limit/power_limit_w": self.power_limit_w}, step=trainer.global_step)
        measured = {measurement.power_limit: measurement for measurement in limits.measurements}
        highest, chosen = measured[max(measured)], measured[self.power_limit_w]
        rank_zero_info(
            "Power limit %d W: %.1f %% of the energy and %.1f %% of the time that the same steps took at %d W",
            chosen.power_limit,
            100 * chosen.energy / highest.energy,
            100 * chosen.time / highest.time,
            highest.power_limit,
        )

    def _put_back(self) -> None:
        """Give the GPUs the limits again that they had before, if they had others."""
        limits, self._limits = self._limits, None
        indices, self._gpu_indices = self._gpu_indices, []
        if not indices:
            return
        if limits is not None:
            with suppress(Exception):  # closes the window of what is being measured, if it still is
                limits.on_epoch_end()
            limits.current_power_limit = max(limits.power_limits)  # as Zeus would have it when the process ends
        try:
            put_back_power_limits(indices, self._limits_before_mw)
        except Exception as error:
            if limits is not None:
                rank_zero_warn(f"The GPUs' power limits could not be put back: {type(error).__name__}: {error}")


def _is_settled(limits: Any) -> bool:
    return hasattr(limits.state, "optimal_power_limit")
