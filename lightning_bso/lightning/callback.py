"""Lightning's moments, and what the optimizer does in each. What a batch size is set on: `dataloading.py`.

The order of a fit: `setup` asks and sets the batch size (later is too late: a scheduler that is made for
the number of steps builds the loaders), `on_train_start` begins to measure, `on_validation_end` reports.
"""

from collections.abc import Callable
from typing import Any, Literal

import lightning.pytorch as pl
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn
from typing_extensions import override

from lightning_bso.client import check_address
from lightning_bso.energy import EnergyMonitor, gpu_indices
from lightning_bso.identity import check_run_id
from lightning_bso.lightning.checkpoints import saved_run
from lightning_bso.lightning.checks import check_trainer, check_validation_data
from lightning_bso.lightning.child_processes import abandon_with_process
from lightning_bso.lightning.dataloading import check_can_accumulate, check_reached, find_setter, split
from lightning_bso.lightning.feedback import closing_line, log_run
from lightning_bso.lightning.lr_scaling import LR_SCALINGS, LRScaling, scale_learning_rates
from lightning_bso.lightning.probing import Probe
from lightning_bso.optimizer import BatchSizeOptimizer, server_address
from lightning_bso.ranks import Ranks, TorchRanks
from lightning_bso.wire import JobSpec, ReportAnswer


class ZeusBSOCallback(pl.Callback):
    """Trains with the batch size that the optimizer's server picks, and reports what the run costs.

    The server learns from every run: launched again and again, a job comes to its cheapest batch size. A run
    ends when the metric reaches the job's target, and fails when it has not within `max_epochs`, or when its
    cost passes `beta_knob` times the lowest known.

    Example:
        >>> job = JobSpec(job_id_prefix="digits", batch_sizes=[32, 64, 128], default_batch_size=64,
        ...               target_metric=0.96, max_epochs=60)
        >>> trainer = Trainer(max_epochs=60, callbacks=[ZeusBSOCallback("http://127.0.0.1:8000", job)])

    Args:
        server_url: the server's address; None: `$ZEUS_BSO_SERVER_URL`, and without that the callback is off.
        job: the training that recurs, as a JobSpec or a dict of one. Its batch sizes are global ones. None: only where
            the callback is off.
        monitor: name of the logged validation metric that is compared with the job's target.
        energy_monitor: a ZeusMonitor to measure with; None: made if the run uses GPUs.
        token: access token; None: `$ZEUS_BSO_TOKEN`, if set.
        run_id: name of this run; a process that asks again under it gets the same trial. None: that of the checkpoint
            that the fit is resumed from, the scheduler's (`$SLURM_JOB_ID`, `$TORCHELASTIC_RUN_ID`), or else a new one.
        batch_arg_name: attribute of the module or datamodule, or their hparams, that holds the batch size; dots lead
            into an attribute ("data.batch_size"). Of several names ("train_batch_size", "val_batch_size") all are set.
        max_device_batch_size: the most that one device takes at a time; None: no limit.
        accumulate: "auto": a batch that is larger than `max_device_batch_size` is taken in the fewest equal parts,
            whose gradients the Trainer accumulates. None: a job with such a batch size is refused.
        lr_scaling: how learning rates, written for the job's default batch size, follow this run's: "linear", "sqrt"
            (by the root of the ratio), or "auto", by the optimizer's class. None: not at all.
        fallback_to_default: train with the default batch size, unreported, when no server answers at the start.
        on_fail: "raise": a run that has failed raises out of `fit`; "stop": it ends `fit` normally, and `result` tells.
        probe: "auto": after the first run of a job that converges, time a few steps of every batch size, if that takes
            less than 2 % of the run's time, so that the next runs know what an epoch costs and what does not fit in
            memory. A copy of the module takes these steps. Where that is not safe or would not tell, the log says why.

    Raises:
        ZeusBSOTrainFailError: out of `fit`, when the run has failed (with on_fail="raise"). Launch it again.
        pydantic.ValidationError: the job is not valid.
        MisconfigurationException: another argument is not.
    """

    def __init__(
        self,
        server_url: str | None = None,
        job: JobSpec | dict[str, Any] | None = None,
        monitor: str = "val_acc",
        *,
        energy_monitor: EnergyMonitor | None = None,
        token: str | None = None,
        run_id: str | None = None,
        batch_arg_name: str | list[str] = "batch_size",
        max_device_batch_size: int | None = None,
        accumulate: Literal["auto"] | None = None,
        lr_scaling: LRScaling | None = None,
        fallback_to_default: bool = False,
        on_fail: Literal["raise", "stop"] = "raise",
        probe: Literal["auto"] | None = None,
    ) -> None:
        _check_known("on_fail", on_fail, "raise", "stop")
        _check_known("probe", probe, "auto", None)
        _check_known("accumulate", accumulate, "auto", None)
        _check_known("lr_scaling", lr_scaling, *LR_SCALINGS, None)
        if max_device_batch_size is not None and max_device_batch_size < 1:
            raise MisconfigurationException(
                f"max_device_batch_size={max_device_batch_size} is no batch size; give 1 or more"
            )
        if accumulate is not None and max_device_batch_size is None:
            raise MisconfigurationException(
                "accumulate='auto' needs max_device_batch_size, the most that one device takes at a time"
            )
        _check_by(check_run_id, run_id)
        if server_url:
            _check_by(check_address, server_url)
        self.server_url = server_url
        self._job = None if job is None else JobSpec.model_validate(job)
        self.monitor = monitor
        self.energy_monitor = energy_monitor
        self.run_id = run_id
        self.batch_arg_name = batch_arg_name
        self.max_device_batch_size = max_device_batch_size
        self.accumulate = accumulate
        self.lr_scaling = lr_scaling
        self.fallback_to_default = fallback_to_default
        self.on_fail = on_fail
        self.probe = probe
        self._token = token
        self._run: BatchSizeOptimizer | None = None
        self.batch_size: int | None = None
        """Global batch size of the current run; None before `setup`."""
        self._loader_size = 0

    @property
    def job(self) -> JobSpec:
        """The training that recurs.

        Raises:
            MisconfigurationException: the callback was made without one.
        """
        if self._job is None:
            raise MisconfigurationException("ZeusBSOCallback has a server, but no job; give job=JobSpec(…)")
        return self._job

    @property
    def trial_number(self) -> int | None:
        """Number of the run's trial; None before it has one, and when it is not reported."""
        return self._run.trial.trial_number if self._run and self._run.trial else None

    @property
    def job_id(self) -> str | None:
        """Name of the job on the server; None before the run has a trial."""
        return self._run.trial.job_id if self._run and self._run.trial else None

    @property
    def result(self) -> ReportAnswer | None:
        """The verdict that ended the run; None before it."""
        return self._run.result if self._run else None

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        self._run = self.batch_size = None
        server_url = server_address(self.server_url)
        if server_url is None or trainer.fast_dev_run:  # type: ignore[attr-defined]  # set by its debugging flags
            rank_zero_info(
                "ZeusBSOCallback is off: %s.",
                "this is a fast_dev_run" if server_url else "no server_url is given",
            )
            return
        check_trainer(trainer, self.job)
        self._check_device_batch_sizes(trainer, pl_module)
        place = self._placer(trainer, pl_module)
        run = BatchSizeOptimizer(
            self.energy_monitor,
            server_url,
            self.job,
            token=self._token,
            run_id=self.run_id,
            fallback_to_default=self.fallback_to_default,
            gpu_indices=gpu_indices(trainer.strategy.root_device),
            ranks=TorchRanks(trainer.local_rank) if trainer.world_size > 1 else None,
        )
        self.batch_size = run.get_batch_size(saved_run(trainer, self.state_key))
        self._run = run
        abandon_with_process(trainer, run)
        self._loader_size = place(self.batch_size // trainer.world_size)
        if self.accumulate is not None:
            run.accumulate_grad_batches = trainer.accumulate_grad_batches
        if run.trial is not None:
            rank_zero_info(
                "Batch size %d%s for trial %d of job %s: %s",
                self.batch_size,
                self._shares(trainer),
                run.trial.trial_number,
                run.trial.job_id,
                run.trial.reason,
            )

    def batch_size_setter(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> Callable[[int], None]:
        """What puts a batch size where this fit's train loader is made from; called in `setup`.

        Override it for training data whose batch size is held neither by an attribute nor by loaders given to `fit`.

        Args:
            trainer: the trainer, before its loaders are built.
            pl_module: the module that is fitted.

        Returns:
            A function of the loader's batch size. It is called before the loaders are built.

        Raises:
            MisconfigurationException: there is nothing to put it in. No trial has been taken yet.
        """
        names = [self.batch_arg_name] if isinstance(self.batch_arg_name, str) else self.batch_arg_name
        return find_setter(trainer, pl_module, names)

    @override
    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.lr_scaling is not None and self.batch_size is not None:
            scale_learning_rates(trainer, self.lr_scaling, self.batch_size / self.job.default_batch_size)

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._run is None or self.batch_size is None:
            return
        check_reached(trainer, self._loader_size)
        check_validation_data(trainer)
        self._run.on_train_begin()

    @override
    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, index: int) -> None:
        run = self._run
        if index == 0 and run is not None and run.trial is not None and trainer.progress_bar_callback is not None:
            shown = {
                "zeus_bso/batch_size": float(run.trial.batch_size),
                "zeus_bso/trial": float(run.trial.trial_number),
            }
            shown |= {} if run.cost_j is None else {"zeus_bso/cost_j": run.cost_j}
            self.log_dict(shown, prog_bar=True, logger=False, batch_size=1)  # type: ignore[attr-defined]  # Lightning's

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
        # What is logged no more, or in training alone, keeps its last value, which would pass for this validation's.
        if self._run is not None and trainer.state.fn == "fit":
            trainer.callback_metrics.pop(self.monitor, None)

    @override
    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        run = self._run
        if run is None or run.result is not None or trainer.sanity_checking or trainer.state.fn != "fit":
            return
        run.report(self._metric(trainer, run.ranks), trainer.current_epoch + int(trainer.is_last_batch))
        self._show(trainer, run)
        self._raise_if_failed(run)
        if run.training_finished:
            trainer.should_stop = True

    @override
    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        if trainer.state.fn != "fit":
            return
        if self._run is not None:
            self._run.abandon(exception)
        self._stop_accumulating(trainer)

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
        # A tuner leaves its fit by an exception of its own, which no other hook hears of.
        if stage == "fit" and self._run is not None:
            self._run.end("fit was left without a verdict")
        self._stop_accumulating(trainer)

    def _placer(self, trainer: pl.Trainer, module: pl.LightningModule) -> Callable[[int], int]:
        """What sets a batch size of one device, and says how much of it a loader batch holds."""
        set_batch_size = self.batch_size_setter(trainer, module)

        def place(batch_size: int) -> int:
            loader_size = batch_size
            if self.accumulate is not None and self.max_device_batch_size is not None:
                loader_size, trainer.accumulate_grad_batches = split(batch_size, self.max_device_batch_size)
            set_batch_size(loader_size)
            return loader_size

        return place

    def _stop_accumulating(self, trainer: pl.Trainer) -> None:
        if self.accumulate is not None and self.batch_size is not None:
            trainer.accumulate_grad_batches = 1  # as it was: the next fit may have another batch size

    def _check_device_batch_sizes(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if self.accumulate is not None:
            check_can_accumulate(trainer, module)
        elif self.max_device_batch_size is not None:
            most = self.max_device_batch_size * trainer.world_size
            beyond = [size for size in self.job.batch_sizes if size > most]
            if beyond:
                raise MisconfigurationException(
                    f"max_device_batch_size={self.max_device_batch_size} on {trainer.world_size} devices does not "
                    f"allow the job's batch sizes {', '.join(map(str, beyond))}. Take them out of the job, or let them "
                    "be reached by gradient accumulation: accumulate='auto'"
                )

    def _shares(self, trainer: pl.Trainer) -> str:
        """How the batch is divided, in brackets; nothing where it is not."""
        shares = [f"{self._loader_size} a device"] if trainer.world_size > 1 else []
        if self.accumulate is not None and trainer.accumulate_grad_batches > 1:
            shares = [f"{self._loader_size} a device", f"{trainer.accumulate_grad_batches} accumulated"]
        return f" ({', '.join(shares)})" if shares else ""

    def _finish(self, trainer: pl.Trainer, run: BatchSizeOptimizer, number: int) -> None:
        """End a run whose fit is over and that has no verdict, or take the one that comes at the last moment."""
        batches = trainer.fit_loop.total_batch_idx + 1
        if batches == 0:
            run.finish("no training step was run")
            raise MisconfigurationException(
                f"no training step was run with batch size {self.batch_size}: with drop_last=True the training data "
                "must fill at least one batch. Remove such batch sizes from the job, or set drop_last=False"
            )
        run.finish(f"fit ended after {trainer.current_epoch} epochs and {batches} batches without a verdict")
        if run.result is not None:  # by a report that was made up for
            self._show(trainer, run)
            self._raise_if_failed(run)
        else:
            rank_zero_warn(
                f"fit ended before the optimizer had a verdict on trial {number}, so the run taught it nothing. "
                f"Let the Trainer's max_epochs (or max_steps) allow the job's max_epochs, {self.job.max_epochs}, and "
                "no other callback stop it before"
            )

    def _show(self, trainer: pl.Trainer, run: BatchSizeOptimizer) -> None:
        """Log what the run has cost so far and, once there is a verdict, say how it did."""
        if trainer.is_global_zero and run.trial is not None and self.batch_size is not None:
            log_run(trainer, self.batch_size, run.trial.trial_number, run.spent, run.cost_j)
            if run.result is not None:
                rank_zero_info(closing_line(self.batch_size, run.result, run.spent, run.describe_job()))

    def _raise_if_failed(self, run: BatchSizeOptimizer) -> None:
        if self.on_fail == "raise":
            run.raise_if_failed()

    def _probe(self, trainer: pl.Trainer, module: pl.LightningModule, run: BatchSizeOptimizer) -> None:
        if self.probe is None or not run.probe_wanted or run.meter is None or self.batch_size is None:
            return
        if run.ranks.rank != 0:  # several ranks make no probe, which one of them says
            return
        accumulates = self.accumulate is not None
        probe = Probe(
            trainer, module, self._placer, self.batch_size, run.meter, run.spent, run.epochs, accumulates=accumulates
        )
        found = probe.run(self.job.batch_sizes)
        if found is not None:
            run.report_probe(found)  # if there is nothing to tell, so that no later run tries again

    def _metric(self, trainer: pl.Trainer, ranks: Ranks) -> float:
        # Where it is logged without sync_dist the ranks differ, or some have none.
        logged = trainer.callback_metrics.get(self.monitor)
        metric = ranks.mean(None if logged is None else float(logged))
        if metric is None:
            known = ", ".join(sorted(trainer.callback_metrics)) or "none"
            raise MisconfigurationException(
                f"ZeusBSOCallback(monitor={self.monitor!r}) found no such metric after the validation; logged are: "
                f"{known}. Log it in validation_step or on_validation_epoch_end: self.log({self.monitor!r}, …)"
            )
        return metric


def _check_known(name: str, value: str | None, *known: str | None) -> None:
    if value not in known:
        names = ", ".join(repr(each) for each in known if each is not None)
        raise MisconfigurationException(
            f"{name}={value!r} is not known; give {names}" + (", or leave it out" if None in known else "")
        )


def _check_by(check: Callable[[Any], object], value: object) -> None:
    try:
        check(value)
    except ValueError as error:
        raise MisconfigurationException(str(error)) from error
