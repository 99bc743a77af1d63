"""The callback that connects Lightning's hooks with the optimizer.

`setup` asks for the batch size and sets it. Later hooks are too late: `configure_optimizers` may ask for the number of
steps, and Lightning then builds the loaders. `on_train_start` starts the measurement, and `on_validation_end` reports.
The run itself, without Lightning, is in `lightning_bso.optimizer`. How a batch size reaches the loaders is in
`dataloading.py`.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Self

from typing_extensions import override

from lightning_bso import variables
from lightning_bso.energy import EnergyMonitor, gpu_indices
from lightning_bso.identity import DerivedJob, check_run_id
from lightning_bso.lightning.checkpoints import left_over_named, saved_run
from lightning_bso.lightning.checks import (
    check_trainer,
    check_validates,
    check_validation_data,
    how_to_validate,
    warn_of_few_steps,
    why_unfit,
)
from lightning_bso.lightning.child_processes import abandon_at_exit
from lightning_bso.lightning.dataloading import (
    check_can_accumulate,
    check_first_batch,
    check_reached,
    find_setter,
    has_training_data,
    present_batch_size,
    split,
)
from lightning_bso.lightning.describing import Metric, as_code, describe, find_metric
from lightning_bso.lightning.early_run import Run, Shared, ask_early, check_machine
from lightning_bso.lightning.families import Callback, classes, misconfiguration, rank_zero_info, rank_zero_warn
from lightning_bso.lightning.feedback import closing_line, log_run
from lightning_bso.lightning.lr_scaling import LR_SCALINGS, LRScaling, scale_learning_rates
from lightning_bso.lightning.probing import Probe
from lightning_bso.lightning.smaller_parts import SmallerParts
from lightning_bso.optimizer import BatchSizeOptimizer, server_address
from lightning_bso.quantities import count
from lightning_bso.ranks import Ranks, TorchRanks
from lightning_bso.transport import check_address
from lightning_bso.wire import AskAnswer, JobSpec, ReportAnswer

if TYPE_CHECKING:
    import lightning.pytorch as pl

DEFAULT_MONITOR = "val_acc"
_REQUIRED_FIELDS = {name for name, field in JobSpec.model_fields.items() if field.is_required()}


class ZeusBSOCallback(Callback):
    """A callback that trains with the batch size that the server chooses, and reports what the run costs.

    The server learns from every run. A job that is launched again and again converges to its cheapest batch size.
    A run ends when the metric reaches the job's target. It fails when the metric does not reach the target within
    `max_epochs`, or when its cost exceeds `beta_knob` times the lowest known cost.

    Example:
        >>> job = JobSpec(job_id_prefix="digits", batch_sizes=[32, 64, 128], default_batch_size=64,
        ...               target_metric=0.96, max_epochs=60)
        >>> trainer = Trainer(max_epochs=60, callbacks=[ZeusBSOCallback("http://127.0.0.1:8000", job)])

    Args:
        server_url: the server's address. None: `$ZEUS_BSO_SERVER_URL`. If that is not set, the callback is off.
        job: the training that recurs, as a JobSpec or a dict of its fields. Its batch sizes are global. None, or a dict
            without `job_id_prefix`, `batch_sizes` or `default_batch_size`: `setup` derives what is missing from the
            training, once, and the server recognizes the training when it is launched again (see `describing.py`).
        monitor: name of the logged validation metric that is compared with the job's target. None: "val_acc". If the
            job is derived: what a ModelCheckpoint or EarlyStopping of the Trainer watches, else "val_loss".
        energy_monitor: a ZeusMonitor to measure with. None: the callback creates one if the run uses GPUs.
        token: access token. None: `$ZEUS_BSO_TOKEN`, if set.
        run_id: name of this run. A process that asks again under this name gets the same trial. None: the name in the
            checkpoint that the fit resumes from, else the scheduler's (`$SLURM_JOB_ID`, `$TORCHELASTIC_RUN_ID`) with a
            number if another process still trains under it, else a new name.
        batch_arg_name: attribute that holds the batch size, on the module, the datamodule or their hparams. Dots lead
            into an attribute ("data.batch_size"). Give several names ("train_batch_size", "val_batch_size") to set all.
            The default, "batch_size", is also found in settings such as `kwargs`, `loader_kwargs`, `args` or `cfg`.
        check: how to check, before anything is measured, that the batch size has reached the training data. "loader":
            by the batch size of the train loaders. "batch": by the number of samples in the first training batch.
            "off": not at all, for a step that draws its own batch from what the loader gives.
        max_device_batch_size: the largest batch that one device takes at a time. "auto": the job finds it. When a
            training step runs out of memory, the fit goes on with half as much at a time, and so do the job's next
            runs. On several devices the run ends without a verdict, and only the next runs take half as much. None: no
            limit.
        accumulate: "auto": split a batch larger than `max_device_batch_size` into the fewest equal parts, and let the
            Trainer accumulate their gradients. None: refuse a job with such a batch size.
        lr_scaling: how to scale learning rates, which are written for the job's default batch size. "linear": by the
            ratio of the run's batch size to the default; "sqrt": by the root of the ratio; "auto": by the rule for the
            optimizer's class. None: no scaling.
        fallback_to_default: train with the default batch size, unreported, when no server answers at the start.
        on_fail: "raise": a failed run raises out of `fit`. "stop": a failed run ends `fit` normally, and `result` holds
            the verdict.
        stop: whether the verdict ends the fit. False: the fit ends by its own rules, and raises no
            ZeusBSOTrainFailError. What it uses after the verdict is recorded apart, and is no part of the run's cost.
            None: True, but False if the job is derived.
        probe: "auto": after the job's first run that converges, time a few steps with every batch size, if that takes
            less than 2 % of the run's time. The next runs then know what an epoch costs and which batch sizes do not
            fit in memory. A copy of the module takes these steps. If a probe would not be safe or conclusive, the
            callback makes none and logs the reason.

    Raises:
        ZeusBSOTrainFailError: out of `fit`, when the run has failed (with on_fail="raise"). Launch it again.
        pydantic.ValidationError: the job is not valid.
        MisconfigurationException: another argument is not valid.
    """

    def __init__(
        self,
        server_url: str | None = None,
        job: JobSpec | dict[str, Any] | None = None,
        monitor: str | None = None,
        *,
        energy_monitor: EnergyMonitor | None = None,
        token: str | None = None,
        run_id: str | None = None,
        batch_arg_name: str | list[str] = "batch_size",
        check: Literal["loader", "batch", "off"] = "loader",
        max_device_batch_size: int | Literal["auto"] | None = None,
        accumulate: Literal["auto"] | None = None,
        lr_scaling: LRScaling | None = None,
        fallback_to_default: bool = False,
        on_fail: Literal["raise", "stop"] = "raise",
        stop: bool | None = None,
        probe: Literal["auto"] | None = None,
    ) -> None:
        _check_choice("on_fail", on_fail, "raise", "stop")
        _check_choice("check", check, "loader", "batch", "off")
        _check_choice("probe", probe, "auto", None)
        _check_choice("accumulate", accumulate, "auto", None)
        _check_choice("lr_scaling", lr_scaling, *LR_SCALINGS, None)
        if isinstance(max_device_batch_size, str):
            _check_choice("max_device_batch_size", max_device_batch_size, "auto")
        elif max_device_batch_size is not None and max_device_batch_size < 1:
            raise misconfiguration(f"max_device_batch_size={max_device_batch_size} is not a batch size; give 1 or more")
        if accumulate is not None and max_device_batch_size is None:
            raise misconfiguration(
                "accumulate='auto' requires max_device_batch_size; give the largest batch that one device takes at a "
                "time, or 'auto'"
            )
        if accumulate is None and max_device_batch_size == "auto":
            raise misconfiguration(
                "max_device_batch_size='auto' requires accumulate='auto', because smaller parts of a batch make up the "
                "batch by gradient accumulation"
            )
        _check_argument(check_run_id, run_id)
        if server_url:
            _check_argument(check_address, server_url)
        self.server_url = server_url
        is_complete = isinstance(job, JobSpec) or (job is not None and job.keys() >= _REQUIRED_FIELDS)
        self._job = JobSpec.model_validate(job) if is_complete else None
        self._given_fields: dict[str, Any] = {} if isinstance(job, JobSpec) or job is None else dict(job)
        self.monitor = monitor
        self.energy_monitor = energy_monitor
        self.run_id = run_id
        self.batch_arg_name = batch_arg_name
        self.check = check
        self.max_device_batch_size = max_device_batch_size
        self.accumulate = accumulate
        self.lr_scaling = lr_scaling
        self.fallback_to_default = fallback_to_default
        self.on_fail = on_fail
        self.stop = is_complete if stop is None else stop
        self.probe = probe
        self._token = token
        self._run: BatchSizeOptimizer | None = None
        self._metric = Metric(DEFAULT_MONITOR, higher_is_better=True)
        self._earlier_values: dict[str, Any] = {}
        self._smaller_parts: SmallerParts | None = None
        self._loader_size = 0
        self._own_accumulation = 1  # what the training has without this callback
        self._own_limit: int | float = 1.0
        self._expects_first_batch = False
        self._shared = Shared()

    def __getstate__(self) -> dict[str, Any]:
        """Leave the run out of copies and pickles. A library may save its callbacks with a model."""
        return vars(self) | {"_run": None, "_smaller_parts": None, "_earlier_values": {}}

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Copy the callback, but not its run. A fit with the copy also sets `result` of this callback."""
        copied = memo[id(self)] = copy.copy(self)
        memo[id(self.energy_monitor)] = self.energy_monitor  # a monitor stands for the machine's GPUs
        vars(copied).update(copy.deepcopy(vars(copied), memo))
        return copied

    @property
    def job(self) -> JobSpec:
        """The training that recurs.

        Raises:
            MisconfigurationException: the job is derived from the training, and no fit has begun.
        """
        if self._job is not None:
            return self._job
        if self._latest is None:
            raise misconfiguration(
                "ZeusBSOCallback has no complete job. A fit derives it from the training; run() and what comes before "
                "the fit need job=JobSpec(…)"
            )
        return self._latest.job

    @property
    def batch_size(self) -> int | None:
        """Global batch size of the current run, or None before `setup`."""
        return self._latest.batch_size if self._latest else None

    @property
    def trial_number(self) -> int | None:
        """Number of the run's trial, or None before the run has a trial and while the run is not reported."""
        return self._trial.trial_number if self._trial else None

    @property
    def job_id(self) -> str | None:
        """Name of the job on the server, or None before the run has a trial."""
        return self._trial.job_id if self._trial else None

    @property
    def result(self) -> ReportAnswer | None:
        """The verdict that ended the run, or None before the verdict. The fit may have used a copy of this callback."""
        return self._latest.result if self._latest else None

    @property
    def _batch_size_names(self) -> list[str]:
        return [self.batch_arg_name] if isinstance(self.batch_arg_name, str) else self.batch_arg_name

    @property
    def _trial(self) -> AskAnswer | None:
        return self._latest.trial if self._latest else None

    @property
    def _latest(self) -> BatchSizeOptimizer | None:
        """The run of this callback's latest fit, or else of its copies' latest fit."""
        return self._run or self._shared.optimizer

    @contextmanager
    def run(self, gpu_indices: list[int] | None = None) -> Iterator[Run]:
        """Ask for the batch size before the model exists. Give the callback to one fit within the `with` block.

        Use this with a library that takes the batch size in a constructor. The callback then sets no batch size. It
        checks that the loaders have the run's batch size, divided by the number of devices, and measures and reports
        as usual. A block that ends without a fit ends the trial.

        Example:
            >>> with ZeusBSOCallback(url, job).run() as run:
            ...     model = NHITS(batch_size=run.batch_size, callbacks=[run.callback])
            ...     NeuralForecast([model], freq="D").fit(data)

        Args:
            gpu_indices: the GPUs of the fit. Empty: the fit is on the CPU. None: all GPUs that this process can use.

        Yields:
            The run, with `batch_size`, `callback` and `result`. Without a server's address the batch size is the job's
            default.

        Raises:
            MisconfigurationException: the callback accumulates gradients, or several processes ask without a `run_id`.
            BSOError: as from `BatchSizeOptimizer.get_batch_size`.
        """
        server_url = server_address(self.server_url)
        if server_url is None:
            yield Run(self.job.default_batch_size, self, Shared())
            return
        if self.accumulate is not None:
            raise misconfiguration(
                "run() and accumulate='auto' exclude each other: with run() your program builds the loaders. Use one "
                "of the two"
            )

        def make_optimizer() -> BatchSizeOptimizer:
            return self._make_optimizer(server_url, self.job, self.run_id, gpu_indices)

        self._run, self._shared = None, Shared()  # an earlier block keeps its own
        with ask_early(self._shared, make_optimizer, self.job, self.run_id) as early_run:
            yield Run(early_run.batch_size, self, self._shared)

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        self._run = None
        early_run = self._shared.early_run
        if early_run is None:
            self._shared.optimizer = None
        if variables.AUTO_DESCRIBE in os.environ:
            return  # the automatic callback ends this program before it trains, so it must take no trial
        server_url = server_address(self.server_url)
        if server_url is None or trainer.fast_dev_run:  # type: ignore[attr-defined]  # set by its debugging flags
            rank_zero_info(
                "ZeusBSOCallback is off: %s.",
                "this is a fast_dev_run"
                if server_url
                else f"no server_url is given, and ${variables.SERVER_URL} is not set",
            )
            return
        trainer.should_stop = False  # Lightning before 2.5.1 keeps it from the previous fit, and takes no step
        if early_run is not None and self.result is not None:
            rank_zero_warn(
                "ZeusBSOCallback is off in this fit, because the run of its with block has its verdict already. Give "
                "each fit a with block of its own"
            )
            return
        check_trainer(trainer, self._job, accumulates=self.accumulate is not None)
        self._own_accumulation, self._own_limit = trainer.accumulate_grad_batches, trainer.limit_train_batches
        self._check_device_batch_sizes(trainer, pl_module)
        set_device_batch_size = self._make_device_setter(trainer, pl_module)
        job = self._describe(trainer, pl_module)
        run = self._make_optimizer(
            server_url,
            job if early_run is None else early_run.job,
            self.run_id if early_run is None else early_run.run_id,
            gpu_indices(trainer.strategy.root_device),
            TorchRanks(trainer.local_rank) if trainer.world_size > 1 else None,
        )
        with left_over_named(trainer):
            state = saved_run(trainer, self.state_key)
            if state is None and early_run is not None:
                state = early_run.state
            batch_size = run.get_batch_size(state)
        self._run = self._shared.optimizer = run
        self._shared.has_fit = True
        abandon_at_exit(trainer, run)
        if early_run is not None:
            check_machine(early_run, self.job, run.machine)
        device_batch_size = batch_size // trainer.world_size
        take_at_most = partial(self._take_at_most, trainer, run, partial(set_device_batch_size, device_batch_size))
        if self.max_device_batch_size == "auto":
            take_at_most(None if run.trial is None else run.trial.max_device_batch_size)
            check = partial(self._check_training_data, trainer)
            self._smaller_parts = SmallerParts(trainer, run, self._loader_size, take_at_most, check)
        else:
            take_at_most(self.max_device_batch_size)
        if self._job is None and not self._metric.is_assumed:
            self._log_derived_job()
        if run.trial is not None:
            rank_zero_info(
                "Batch size %d%s for trial %d of job %s: %s",
                batch_size,
                self._describe_shares(trainer),
                run.trial.trial_number,
                run.trial.job_id,
                run.trial.reason,
            )

    def batch_size_setter(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> Callable[[int], None]:
        """Return the function that sets the batch size of this fit's train loader. `setup` calls this method.

        Override it if neither an attribute nor a loader given to `fit` holds the batch size of the training data.

        Args:
            trainer: the trainer, before it builds its loaders.
            pl_module: the module to fit.

        Returns:
            A function that takes the loader's batch size. `setup` calls it before Lightning builds the loaders.

        Raises:
            MisconfigurationException: nothing holds a batch size. Raised before the run takes a trial.
        """
        names = self._batch_size_names
        if self._job is not None:
            size = self._job.default_batch_size // trainer.world_size
        else:
            size = 2 * (present_batch_size(trainer, pl_module, names) or 1)
        return find_setter(trainer, pl_module, names, size)

    @override
    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.lr_scaling is not None and self._run is not None and self.batch_size is not None:
            scale_learning_rates(trainer, self.lr_scaling, self.batch_size / self.job.default_batch_size)

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._run is None:
            return
        self._check_training_data(trainer)
        check_validation_data(trainer)
        check_validates(trainer)
        if self._job is not None:
            warn_of_few_steps(trainer, self._job)
        self._run.on_train_begin()

    @override
    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, index: int) -> None:
        if self._expects_first_batch:
            self._expects_first_batch = False
            check_first_batch(trainer, batch, self._loader_size)
        run = self._run
        if index == 0 and run is not None and run.trial is not None and trainer.progress_bar_callback is not None:
            values = {
                "zeus_bso/batch_size": float(run.trial.batch_size),
                "zeus_bso/trial": float(run.trial.trial_number),
            }
            values |= {} if run.cost_j is None else {"zeus_bso/cost_j": run.cost_j}
            self.log_dict(values, prog_bar=True, logger=False, batch_size=1)  # type: ignore[attr-defined]  # Lightning's

    @override
    def on_before_optimizer_step(self, *_: Any, **__: Any) -> None:
        if self._smaller_parts is not None:
            self._smaller_parts.note_step()

    @override
    def on_train_batch_end(self, *_: Any, **__: Any) -> None:
        if self._run is not None:
            self._run.keep_alive()

    @override
    def on_validation_batch_end(self, *_: Any, **__: Any) -> None:
        if self._run is not None:
            self._run.keep_alive()

    @override
    def state_dict(self) -> dict[str, Any]:
        return self._run.state_dict() if self._run is not None else {}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if self._run is not None:
            self._run.load_state_dict(state_dict)

    @override
    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # A metric that this validation does not log keeps its last value, which other callbacks may read. It must not
        # be reported again, so a copy marks it.
        if self._run is not None and trainer.state.fn == "fit":
            known = trainer.callback_metrics
            self._earlier_values = {name: known[name].clone() for name in self._metric.names if name in known}
            known.update(self._earlier_values)

    @override
    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        run = self._run
        if run is None or trainer.sanity_checking or trainer.state.fn != "fit":
            return
        had_verdict = run.result is not None
        if had_verdict and self.stop:
            return
        run.report(self._read_metric(trainer, run.ranks), trainer.current_epoch + int(trainer.is_last_batch))
        if had_verdict:
            return
        self._log_run(trainer, run)
        self._raise_if_failed(run)
        if self.stop and run.training_finished:
            trainer.should_stop = True

    @override
    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        if trainer.state.fn != "fit":
            return
        if self._run is not None:
            unfit = self._why_unfit(trainer, exception)
            # Lightning and this callback raise this class about the program, never about the batch size.
            misconfigured = unfit is None and isinstance(
                exception, classes("utilities.exceptions:MisconfigurationException")
            )
            self._run.abandon(exception, unfit, trainer.current_epoch, misconfigured=misconfigured)
        self._stop_accumulating(trainer)

    def _why_unfit(self, trainer: pl.Trainer, error: BaseException) -> str | None:
        """Say why every run with this batch size ends in the error. None: not every run does, as far as is known."""
        unfit = why_unfit(trainer, error)
        if unfit is not None:
            error.add_note(f"{unfit} with batch size {self.batch_size}: {how_to_validate(trainer)}")
        return unfit

    @override
    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        run = self._run
        if run is None:
            return
        if run.result is None and run.trial is not None:
            self._finish(trainer, run, run.trial.trial_number)
        if run.result is not None and run.result.converged:
            self._probe(trainer, pl_module, run)

    @override
    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        # A Tuner ends its fit with its own exception, and Lightning calls no other hook for that.
        if stage == "fit" and self._run is not None:
            self._run.end("fit ended early without a verdict")
        if stage == "fit":
            self._stop_accumulating(trainer)

    def _make_device_setter(self, trainer: pl.Trainer, module: pl.LightningModule) -> Callable[..., int]:
        """Return a function that sets the batch size of one device and returns the batch size of its loader.

        Its second argument is the largest batch that the device takes at a time, if there is a limit.
        """
        if self._shared.early_run is not None:
            return lambda batch_size, _=None: batch_size  # the program has set it
        set_batch_size = self.batch_size_setter(trainer, module)

        def set_device_batch_size(batch_size: int, limit: int | None = None) -> int:
            loader_size = batch_size
            if self.accumulate is not None and limit is not None:
                loader_size, parts = split(batch_size, limit)
                trainer.accumulate_grad_batches = self._own_accumulation * parts
            set_batch_size(loader_size)
            return loader_size

        return set_device_batch_size

    def _describe(self, trainer: pl.Trainer, module: pl.LightningModule) -> JobSpec | DerivedJob:
        """Return the user's job, or else what tells the training from others. Choose the metric, too."""
        if self._job is not None:
            self._metric = Metric(self.monitor or DEFAULT_MONITOR, self._job.higher_is_better_metric)
            return self._job
        self._metric = find_metric(trainer, self.monitor, self._given_fields.get("higher_is_better_metric"))
        limit = (
            self.max_device_batch_size
            if isinstance(self.max_device_batch_size, int) and self.accumulate is None
            else None
        )
        return describe(trainer, module, self._metric, self._batch_size_names, self._given_fields, limit)

    def _log_derived_job(self) -> None:
        if self._job is None and self._run is not None:
            code = as_code(self._run.job, self._metric, stop=self.stop)
            rank_zero_info("The job is derived from the training. As code, which starts a job of its own: %s", code)

    def _take_at_most(
        self, trainer: pl.Trainer, run: BatchSizeOptimizer, set_parts: Callable[[int | None], int], limit: int | None
    ) -> int:
        """Let a device take no more than this at a time, if there is a limit. Returns what it takes."""
        self._loader_size = set_parts(limit)
        if self.accumulate is not None:
            run.accumulate_grad_batches = parts = trainer.accumulate_grad_batches // self._own_accumulation
            if isinstance(self._own_limit, int):  # it counts the loader's batches, which are parts now
                trainer.limit_train_batches = self._own_limit * parts
        return self._loader_size

    def _check_training_data(self, trainer: pl.Trainer) -> None:
        """Check the loaders, and later the first batch, for the batch size that was set last."""
        self._check_loaders(trainer, self._loader_size)
        self._expects_first_batch = self.check == "batch"

    def _make_optimizer(
        self,
        server_url: str,
        job: JobSpec | DerivedJob,
        run_id: str | None,
        gpu_indices: list[int] | None,
        ranks: Ranks | None = None,
    ) -> BatchSizeOptimizer:
        return BatchSizeOptimizer(
            self.energy_monitor,
            server_url,
            job,
            token=self._token,
            run_id=run_id,
            fallback_to_default=self.fallback_to_default,
            stop=self.stop,
            gpu_indices=gpu_indices,
            ranks=ranks,
        )

    def _check_loaders(self, trainer: pl.Trainer, loader_size: int) -> None:
        if self.check == "loader":
            check_reached(trainer, loader_size)

    def _stop_accumulating(self, trainer: pl.Trainer) -> None:
        if self._smaller_parts is not None:
            self._smaller_parts.remove()
            self._smaller_parts = None
        if self.accumulate is not None and self._run is not None:
            trainer.accumulate_grad_batches = self._own_accumulation  # the next fit may have another batch size
            trainer.limit_train_batches = self._own_limit

    def _check_device_batch_sizes(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if self.accumulate is not None:
            check_can_accumulate(trainer, module)
        elif isinstance(self.max_device_batch_size, int) and self._job is not None:
            limit = self.max_device_batch_size * trainer.world_size
            too_large = [size for size in self._job.batch_sizes if size > limit]
            if too_large:
                raise misconfiguration(
                    f"max_device_batch_size={self.max_device_batch_size} with a world size of {trainer.world_size} "
                    f"does not allow the job's batch sizes {', '.join(map(str, too_large))}. Remove them from the job, "
                    "or set accumulate='auto' to reach them by gradient accumulation"
                )

    def _describe_shares(self, trainer: pl.Trainer) -> str:
        """Describe in brackets how the batch is divided. Empty if it is not divided."""
        shares = [f"{self._loader_size} a device"] if trainer.world_size > 1 else []
        if self.accumulate is not None and trainer.accumulate_grad_batches > self._own_accumulation:
            parts = trainer.accumulate_grad_batches // self._own_accumulation
            shares = [f"{self._loader_size} a device", f"in {parts} parts"]
        return f" ({', '.join(shares)})" if shares else ""

    def _finish(self, trainer: pl.Trainer, run: BatchSizeOptimizer, number: int) -> None:
        """End a run that has no verdict after its fit. A last report, or one that was missed, may still bring it.

        Raises:
            MisconfigurationException: the fit took no training step.
        """
        batches = trainer.fit_loop.total_batch_idx + 1
        if batches == 0:
            # A fit without data, or that a callback stops before its first step, says nothing about the batch size.
            unfit = has_training_data(trainer) and not trainer.should_stop
            ruled_out = run.finish("no training step was run", unfit=unfit)
            error = misconfiguration(
                f"no training step was run with batch size {self.batch_size}. With drop_last=True the training data "
                "must fill at least one batch: remove larger batch sizes from the job, or set drop_last=False"
            )
            if ruled_out is not None:
                error.add_note(ruled_out)
            raise error
        if run.epochs < self.job.max_epochs <= trainer.current_epoch:  # the last epoch ended without a validation
            run.report_without_validation(trainer.current_epoch)
        epochs = count(trainer.current_epoch, "epoch")
        run.finish(f"fit ended after {epochs} and {count(batches, 'batch', 'batches')} without a verdict")
        if run.result is not None:
            self._log_run(trainer, run)
            self._raise_if_failed(run)
        elif not run.is_cut_off:  # otherwise the log has said why there is no verdict
            rank_zero_warn(
                f"fit ended before the optimizer had a verdict on trial {number}, so the optimizer learned nothing "
                "from this run. Set the Trainer's max_epochs (or max_steps) high enough for the job's max_epochs, "
                f"{self.job.max_epochs}, and make sure that no other callback stops the fit earlier"
            )

    def _log_run(self, trainer: pl.Trainer, run: BatchSizeOptimizer) -> None:
        """Log the run's costs so far. After the verdict, also log the closing line."""
        if trainer.is_global_zero and run.trial is not None and self.batch_size is not None:
            converged = None if run.result is None else run.result.converged
            log_run(trainer, self.batch_size, run.trial.trial_number, run.spent, run.cost_j, converged=converged)
            if run.result is not None:
                line = closing_line(self.batch_size, run.result, run.spent, run.describe_job())
                rank_zero_info("%s%s", line, "" if self.stop else ". The fit goes on and ends by its own rules")

    def _raise_if_failed(self, run: BatchSizeOptimizer) -> None:
        if self.on_fail == "raise":
            run.raise_if_failed()

    def _probe(self, trainer: pl.Trainer, module: pl.LightningModule, run: BatchSizeOptimizer) -> None:
        if self.probe is None or not run.probe_wanted or run.meter is None or self.batch_size is None:
            return
        if self._shared.early_run is not None:
            rank_zero_warn("No probe of batch sizes: the program sets the batch size, because it asked with run()")
            return
        if run.ranks.rank != 0:  # a run of several ranks makes no probe, and rank 0 logs that
            return
        probe = Probe(
            trainer,
            module,
            self._make_device_setter,
            self._check_loaders,
            self.batch_size,
            run.meter,
            run.spent,
            run.epochs,
            accumulates=self.accumulate is not None,
        )
        sizes = probe.run(self.job.batch_sizes)
        if sizes is not None:
            run.report_probe(sizes)  # an empty list too, so that no later run tries again

    def _read_metric(self, trainer: pl.Trainer, ranks: Ranks) -> float:
        earlier = self._earlier_values
        values = {name: value for name, value in trainer.callback_metrics.items() if value is not earlier.get(name)}
        if self._metric.is_assumed:
            self._metric = self._metric.or_logged(set[str]().union(*ranks.gather(set(values))))
            self._log_derived_job()
        # If the metric is logged without sync_dist, the ranks have different values, and some may have none.
        name = self._metric.name
        value = values.get(name)
        metric = ranks.mean(None if value is None else float(value))
        if metric is None:
            logged_names = ", ".join(sorted(values)) or "none"
            raise misconfiguration(
                f"ZeusBSOCallback(monitor={name!r}) found no such metric after the validation. Logged metrics: "
                f"{logged_names}. Give one of these as monitor, or log yours in validation_step or "
                f"on_validation_epoch_end: self.log({name!r}, …)"
            )
        return self._metric.sign * metric


def _check_choice(name: str, value: str | None, *choices: str | None) -> None:
    if value not in choices:
        raise misconfiguration(f"{name}={value!r} is not a valid value; choose from: {', '.join(map(repr, choices))}")


def _check_argument(check: Callable[[Any], object], value: object) -> None:
    try:
        check(value)
    except ValueError as error:
        raise misconfiguration(str(error)) from error
