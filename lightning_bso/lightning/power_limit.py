"""Runs Zeus' power-limit optimizer at Lightning's hooks, to find the GPUs' cheapest power limit during training.

Zeus measures and chooses the limit. This module decides when and on which GPUs, and restores the limits afterwards.
It works with or without the batch-size optimizer, and does not depend on it. Access to the GPUs is in
`lightning_bso.energy`.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from typing_extensions import override

from lightning_bso.energy import (
    EnergyMonitor,
    default_power_limits_mw,
    describe_gpus,
    gpu_indices,
    make_zeus_monitor,
    power_limits_mw,
    restore_power_limits,
)
from lightning_bso.errors import EnergyUnavailable
from lightning_bso.lightning.dataloading import loader_batch_sizes
from lightning_bso.lightning.families import Callback, misconfiguration, rank_zero_info, rank_zero_warn

if TYPE_CHECKING:
    import lightning.pytorch as pl

Result = TypeVar("Result")


class ZeusPowerLimitCallback(Callback):
    """A callback that trains under the cheapest power limit of the GPUs, found by Zeus' GlobalPowerLimitOptimizer.

    The callback tries every limit, from the highest down. Under each limit it warms up for some steps and measures
    some more. Then it stays at the limit with the lowest eta · energy + (1 - eta) · highest limit · time.
    Setting limits requires permission (root, CAP_SYS_ADMIN, or Zeus' daemon). Without permission, or without a GPU, the
    callback warns and does nothing. At the end of the fit, also after an error, it restores the previous limits.

    Example:
        >>> Trainer(callbacks=[ZeusBSOCallback(url, job), ZeusPowerLimitCallback(profile_folder="power_limits")])

    Args:
        eta_knob: weight of energy against time, 0 to 1. If there is a job, give its eta_knob.
        profile_folder: folder for the measurements, so that the next runs need not measure again. It holds one file
            for each GPU model, number of processes and batch size of a device. Use it for one training only. None:
            measurements are not stored.
        power_limit_step_w: difference between two limits, in watts.
        wait_steps: steps before the search starts.
        warmup_steps: steps under a limit before its measurement.
        profile_steps: measured steps under a limit. Together with `warmup_steps` they must fit between two validations.
        energy_monitor: a ZeusMonitor of this process's GPU. None: the callback creates one.

    Raises:
        MisconfigurationException: an argument is out of range.
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
            raise misconfiguration(f"eta_knob={eta_knob} is out of range; give a number from 0 to 1")
        minimums = {"power_limit_step_w": 1, "wait_steps": 0, "warmup_steps": 1, "profile_steps": 1}
        values = {
            "power_limit_step_w": power_limit_step_w,
            "wait_steps": wait_steps,
            "warmup_steps": warmup_steps,
            "profile_steps": profile_steps,
        }
        for name, value in values.items():
            if value < minimums[name]:
                raise misconfiguration(f"{name}={value} is too small; give {minimums[name]} or more")
        self.eta_knob = eta_knob
        self.profile_folder = None if profile_folder is None else Path(profile_folder)
        self.power_limit_step_w = power_limit_step_w
        self.wait_steps = wait_steps
        self.warmup_steps = warmup_steps
        self.profile_steps = profile_steps
        self.energy_monitor = energy_monitor
        self._search: Any = None  # Zeus' optimizer
        self._gpu_indices: list[int] = []  # GPUs whose limits this callback may have changed
        self._limits_before_mw: dict[int, int] = {}
        self.power_limit_w: int | None = None
        """The cheapest limit, or None before the search has ended."""

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.power_limit_w = None
        steps = min(trainer.num_training_batches, trainer.val_check_batch or float("inf"))
        required = self.warmup_steps + self.profile_steps + 1
        if steps < required:
            rank_zero_warn(
                f"Power limits are not changed: measuring one limit takes {required} steps without a validation in "
                f"between, and there are only {steps}. Lower warmup_steps or profile_steps"
            )
            return
        prepared = self._on_all(trainer, lambda: self._prepare(trainer))
        if prepared is None:
            return
        monitor, path = prepared
        is_stored = path is not None and path.exists()
        is_stored_on_all = trainer.strategy.reduce_boolean_decision(is_stored)
        writes = trainer.local_rank == 0  # on each node only the first process writes the file
        profile = path if is_stored_on_all or (writes and not is_stored) else None
        search = self._on_all(trainer, lambda: self._start_search(trainer, monitor, profile))
        if search is not None:
            self._record_limit(trainer, search)

    @override
    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, index: int) -> None:
        search = self._search
        if search is None or self.power_limit_w is not None:
            return
        try:
            search.on_step_begin()
        except Exception as error:
            if trainer.world_size > 1 and not _has_ended(search):
                raise  # the other processes are waiting for this one's measurement
            rank_zero_warn(
                f"The search for the cheapest power limit ended with an error: {type(error).__name__}: {error}"
            )
            if not _has_ended(search):
                self._restore_limits()
                return
        self._record_limit(trainer, search)

    @override
    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # A validation must not be measured. The measurement that it cuts short starts again after it.
        if self._search is not None and not trainer.sanity_checking:
            self._search.on_epoch_end()

    @override
    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._search is not None:
            self._search.on_epoch_end()

    @override
    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._restore_limits()

    @override
    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._restore_limits()

    def _on_all(self, trainer: pl.Trainer, action: Callable[[], Result]) -> Result | None:
        """Run an action in every process. If it fails in any of them, warn, restore the limits and return None."""
        problem = "another process cannot set them"
        try:
            result = action()
        except Exception as error:  # no error of a driver may stop the training
            result, problem = None, f"{type(error).__name__}: {error}"
        # All processes or none: their measurements are added up, so the others would wait for a missing process.
        if trainer.strategy.reduce_boolean_decision(result is not None):
            return result
        rank_zero_warn(f"Power limits are not changed: {problem}")
        self._restore_limits()
        return None

    def _prepare(self, trainer: pl.Trainer) -> tuple[Any, Path | None]:
        """Return the monitor of this process's GPU, and the file for its measurements."""
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

    def _start_search(self, trainer: pl.Trainer, monitor: Any, profile: Path | None) -> Any:
        """Create Zeus' optimizer for the GPUs of a monitor, which sets their first limit."""
        from zeus.optimizer.power_limit import GlobalPowerLimitOptimizer, ZeusCost

        is_stored = profile is not None and profile.exists()
        self._gpu_indices = list(monitor.gpu_indices)
        self._limits_before_mw = power_limits_mw(self._gpu_indices)
        self._warn_about_changed_limits()
        try:
            self._search = GlobalPowerLimitOptimizer(
                monitor,
                ZeusCost(self.eta_knob, trainer.world_size * len(self._gpu_indices)),
                self.wait_steps,
                self.warmup_steps,
                self.profile_steps,
                self.power_limit_step_w,
                profile,
            )
        except ValueError as error:
            if is_stored:
                raise ValueError(f"{profile} cannot be read; remove it to measure again: {error}") from error
            raise
        return self._search

    def _warn_about_changed_limits(self) -> None:
        """Warn about limits that differ from the default.

        An administrator may have set them on purpose, or a killed process may have left them. Nothing tells these
        cases apart.
        """
        for index, default_mw in default_power_limits_mw(self._gpu_indices).items():
            current_mw = self._limits_before_mw.get(index, default_mw)
            if current_mw != default_mw:
                current_w, default_w = f"{current_mw / 1000:g} W", f"{default_mw / 1000:g}"
                warnings.warn(  # in every process, because each has its own GPU
                    f"GPU {index} has a power limit of {current_w} instead of its default of {default_w} W. The fit "
                    f"restores the limit of {current_w} at its end. If nobody set it on purpose, a killed training "
                    f"left it: `nvidia-smi -i GPU -pl {default_w}` resets it",
                    stacklevel=2,
                )

    def _record_limit(self, trainer: pl.Trainer, search: Any) -> None:
        """Store and log the cheapest limit, if the search has ended."""
        if not _has_ended(search):
            return
        self.power_limit_w = search.state.optimal_power_limit // 1000
        for logger in trainer.loggers:
            logger.log_metrics({"zeus_power_limit/power_limit_w": self.power_limit_w}, step=trainer.global_step)
        measurements = {measurement.power_limit: measurement for measurement in search.measurements}
        highest, chosen = measurements[max(measurements)], measurements[self.power_limit_w]
        rank_zero_info(
            "Power limit %d W: %.1f %% of the energy and %.1f %% of the time that the same steps took at %d W",
            chosen.power_limit,
            100 * chosen.energy / highest.energy,
            100 * chosen.time / highest.time,
            highest.power_limit,
        )

    def _restore_limits(self) -> None:
        """Restore the limits that the GPUs had before the search, if it may have changed them."""
        search, self._search = self._search, None
        indices, self._gpu_indices = self._gpu_indices, []
        if not indices:
            return
        if search is not None:
            with suppress(Exception):  # closes the measurement window, if one is open
                search.on_epoch_end()
            search.current_power_limit = max(search.power_limits)  # the limit that Zeus sets when the process ends
        try:
            restore_power_limits(indices, self._limits_before_mw)
        except Exception as error:
            if search is not None:
                rank_zero_warn(
                    f"The GPUs' previous power limits could not be restored: {type(error).__name__}: {error}. Reset "
                    "them with `nvidia-smi -i GPU -pl WATTS`"
                )


def _has_ended(search: Any) -> bool:
    return hasattr(search.state, "optimal_power_limit")
