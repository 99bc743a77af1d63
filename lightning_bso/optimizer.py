"""One run under the optimizer, without a framework: ask for a batch size, measure, report, stop.

`lightning.callback` calls this module at Lightning's hooks. Once training runs, only the verdict raises an error. The
log says once what cannot be measured or reported, and `outbox` sends missed reports later.
The calls over HTTP are in `client`, the measuring is in `measurement`, and the state in a checkpoint is in `run_state`.
"""

import logging
import math
import os
import uuid
from functools import partial
from itertools import count
from types import TracebackType
from typing import Any, Self

from pydantic import ValidationError

from lightning_bso import variables
from lightning_bso.client import BsoClient
from lightning_bso.energy import (
    WATTS_PER_BUSY_CORE,
    EnergyMeter,
    EnergyMonitor,
    Machine,
    Reading,
    join_machines,
    make_meter,
)
from lightning_bso.errors import (
    BSOError,
    ServerRefused,
    ServerUnreachable,
    ZeusBSOTrainFailError,
    is_interruption,
    is_out_of_memory,
)
from lightning_bso.identity import DerivedJob, check_run_id, complete_spec, scheduler_run_id
from lightning_bso.measurement import Measurement, Window
from lightning_bso.outbox import Outbox
from lightning_bso.process import still_runs, this_process
from lightning_bso.ranks import Ranks
from lightning_bso.run_state import (
    check_run,
    check_trial,
    is_unreported,
    reported_state,
    unreported_batch_size,
    unreported_state,
)
from lightning_bso.wire import (
    MAX_REASON_LENGTH,
    AfterRequest,
    AskAnswer,
    HeartbeatRequest,
    JobSpec,
    JobSummary,
    ProbedSize,
    ProbeRequest,
    ReportAnswer,
    ReportRequest,
    TrialRequest,
)

log = logging.getLogger(__name__)

NOT_FOUND, CONFLICT = 404, 409
"""Answers of the server: there is no such job, and there is such a job with another spec."""


class BatchSizeOptimizer:
    """Asks the server for the batch size of this run, and reports the run's cost to the server.

    Example:
        >>> bso = BatchSizeOptimizer(server_url="http://127.0.0.1:8000", job=JobSpec(...))
        >>> batch_size = bso.get_batch_size()
        >>> bso.on_train_begin()
        >>> while not bso.training_finished:
        ...     train_one_epoch(batch_size)
        ...     bso.on_evaluate(validate())

    The object is also a context manager. An error that leaves the block ends the trial, so its batch size is free at
    once, and not only when the lease expires. Ctrl-C leaves the trial open.

    Args:
        monitor: a ZeusMonitor for the GPUs of this run. None: the optimizer creates one if the run uses GPUs.
        server_url: the server's address. None: `$ZEUS_BSO_SERVER_URL`.
        job: the training that recurs. Without a `job_id`, the job's name is its prefix and a hash of the spec. The same
            script then uses the same job at every launch. A `DerivedJob` is described by the server, if it knows it.
        token: access token. None: `$ZEUS_BSO_TOKEN`, if set.
        run_id: name of this run. A process that asks again under this name gets the same trial. None: `$SLURM_JOB_ID`
            or `$TORCHELASTIC_RUN_ID`, with a number if an earlier run under this name has ended or another process
            still trains it; else a new name.
        fallback_to_default: train with the default batch size, unreported, when no server answers the ask.
        stop: whether the verdict ends the training. False: the training goes on by its own rules. What it uses after
            the verdict is recorded apart, and is no part of the run's cost. A failed run then raises no error.
        gpu_indices: the GPUs of this process, if there is no monitor. Empty: the run is on the CPU. None: all GPUs
            that Zeus finds, if this process uses any GPU.
        ranks: the processes of the run. Give `TorchRanks()` if there are several. Each process then creates this
            object and calls its methods; rank 0 asks and reports for all of them. Only the first process of each node
            uses its monitor.

    Raises:
        ValueError: the job or the server's address is missing, or the address or `run_id` is not valid.
    """

    def __init__(
        self,
        monitor: EnergyMonitor | None = None,
        server_url: str | None = None,
        job: JobSpec | DerivedJob | dict[str, Any] | None = None,
        *,
        token: str | None = None,
        run_id: str | None = None,
        fallback_to_default: bool = False,
        stop: bool = True,
        gpu_indices: list[int] | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        if job is None:
            raise ValueError("job is missing: give a JobSpec, or a dict of its fields")
        address = server_address(server_url)
        if address is None:
            raise ValueError(f"server_url is missing: give the server's address, or set {variables.SERVER_URL}")
        check_run_id(run_id)
        self._client = BsoClient(address, token or os.environ.get(variables.TOKEN))
        self._derived_job = job if isinstance(job, DerivedJob) else None
        self._job = None if isinstance(job, DerivedJob) else JobSpec.model_validate(job)
        self._monitor = monitor
        self._gpu_indices = gpu_indices
        self.ranks = ranks or Ranks()
        """The processes of the run."""
        self._fallback_to_default = fallback_to_default
        self._stop = stop
        self._run_id_is_fixed = run_id is not None
        self.run_id = run_id or scheduler_run_id() or uuid.uuid4().hex
        """Name of this run. Give it to the process that resumes the run."""
        self._process: str | None = None
        self._measurement = Measurement()
        self._machine: Machine | None = None
        self._trial: AskAnswer | None = None
        self._batch_size: int | None = None
        self._state_without_trial: dict[str, Any] = {}
        self._energy_j = self._time_s = 0.0  # of the whole training, that after the verdict included
        self._at_verdict = Reading(0.0, 0.0)
        self._epoch = self._last_epoch = self._last_number = 0
        self._metric: float | None = None
        self._best_metric: float | None = None
        self._outbox = Outbox(self._client)
        self.accumulate_grad_batches = 1
        """Number of parts in which a device processes its share of a batch (gradient accumulation); recorded."""
        self.result: ReportAnswer | None = None
        """The verdict that ended the run, or None before the verdict."""

    @property
    def job(self) -> JobSpec:
        """The training that recurs.

        Raises:
            RuntimeError: the job is a `DerivedJob`, and `get_batch_size` has not been called.
        """
        if self._job is None:
            raise RuntimeError("the server may know this job; call get_batch_size() first")
        return self._job

    @property
    def trial(self) -> AskAnswer | None:
        """The server's answer with this run's batch size.

        None before `get_batch_size`, and once the run is no longer reported.
        """
        return self._trial

    @property
    def batch_size(self) -> int | None:
        """The global batch size to train with, or None before `get_batch_size`."""
        return self._batch_size

    @property
    def machine(self) -> Machine | None:
        """The machine that the run is measured on, or None before `get_batch_size`."""
        return self._machine

    @property
    def training_finished(self) -> bool:
        """Whether the training is over: the run has a verdict, or has trained for `max_epochs`.

        With `stop=False` the verdict does not matter.
        """
        return (self._stop and self.result is not None) or self._last_epoch >= self.job.max_epochs

    @property
    def is_cut_off(self) -> bool:
        """Whether reports of this process wait for a server that does not answer."""
        return bool(self._outbox)

    @property
    def probe_wanted(self) -> bool:
        """Whether the server asks for a probe: the cost of an epoch with the other batch sizes (see `report_probe`)."""
        return self._trial is not None and self._trial.probe_wanted

    @property
    def meter(self) -> EnergyMeter | None:
        """The run's energy meter, or None before `get_batch_size`."""
        return self._measurement.meter

    @property
    def cost_j(self) -> float | None:
        """Cost so far in joules, from the server's last answer to rank 0; None before the first report."""
        return None if self._outbox.answer is None else self._outbox.answer.cost

    @property
    def spent(self) -> Reading:
        """Energy and time that the run has reported so far, up to its verdict."""
        return self._at_verdict if self.result is not None else Reading(self._energy_j, self._time_s)

    @property
    def spent_after(self) -> Reading:
        """Energy and time that the training has used after the verdict."""
        if self.result is None:
            return Reading(0.0, 0.0)
        return Reading(self._energy_j - self._at_verdict.energy_j, self._time_s - self._at_verdict.time_s)

    @property
    def epochs(self) -> int:
        """Epochs that the run has reported."""
        return self._epoch

    def get_batch_size(self, resumed_from: dict[str, Any] | None = None) -> int:
        """Register the job if necessary, and ask for this run's batch size. Call this before training.

        Args:
            resumed_from: the `state_dict` of the run that this process resumes. With several ranks, only rank 0's value
                is used. None: a new run, or a run that resumes by its `run_id`.

        Returns:
            The global batch size to train with.

        Raises:
            EnergyUnavailable: the run uses GPUs whose energy cannot be read.
            ServerUnreachable: no server answered, and there is no fallback.
            ServerRefused: the spec is not valid or differs from the job's, or no batch size is left.
            BSOError: the run with this `run_id` has already ended, or `resumed_from` is of another run or job.
        """
        saved = self.ranks.gather(resumed_from)[0]
        if saved is not None and is_unreported(saved):
            if self._derived_job is not None:
                self._job = self._derive(self._derived_job)
            self._batch_size = unreported_batch_size(saved, self.job, self.ranks.size)
            self._state_without_trial = saved
            log.warning("This run was unreported before it was interrupted, and stays unreported")
            return self._batch_size
        if saved is not None and not self._run_id_is_fixed:
            self.run_id, self._run_id_is_fixed = saved["run_id"], True
        machines = self.ranks.on_all(self._make_measurement)
        machine = self._machine = join_machines([machine for machine in machines if machine is not None])
        if self._derived_job is not None:
            self._job = self._adopt(self._derived_job, machine)
        self._process = self.ranks.on_rank_zero(this_process)
        trial, self.run_id = self.ranks.on_rank_zero(lambda: self._ask(machine, saved))
        if trial is None:
            self._batch_size = self.job.default_batch_size if saved is None else int(saved["batch_size"])
            self._state_without_trial = unreported_state(self._batch_size)
            return self._batch_size
        goes_on = not self._stop and trial.converged is not None  # after its verdict
        if trial.outcome is not None and not goes_on:
            advice = (
                "under another run_id" if saved is None else "without its checkpoint, and save it in another folder"
            )
            raise BSOError(
                f"run {self.run_id!r} of job {trial.job_id!r} (trial {trial.trial_number}) has ended already: "
                f"{trial.outcome}. Launch a new run {advice}"
            )
        self._trial = trial
        self._batch_size = trial.batch_size
        if goes_on:
            self.result = ReportAnswer(stop_train=True, converged=bool(trial.converged), message=trial.outcome or "")
            self._at_verdict = Reading(trial.energy, trial.time)
        self._energy_j, self._time_s = trial.energy + trial.energy_after, trial.time + trial.time_after
        self._epoch, self._last_number = trial.current_epoch, trial.report_number
        self._outbox.mark_contact()
        if self.ranks.rank == 0:
            log.info(
                "Job %s, trial %d: batch size %d (%s)", trial.job_id, trial.trial_number, trial.batch_size, trial.reason
            )
        return trial.batch_size

    def on_train_begin(self) -> None:
        """Start to measure. Call this when training starts, after the set-up.

        Raises:
            RuntimeError: `get_batch_size` has not been called.
        """
        if self._batch_size is None:
            raise RuntimeError("call get_batch_size() before on_train_begin()")
        self._begin_window()

    def on_evaluate(self, metric: float, current_epoch: int | None = None) -> None:
        """Report the result of a validation. Then check `training_finished`.

        Args:
            metric: the validation metric. With several ranks, only rank 0's value is used. NaN or infinity: the run has
                diverged, and fails.
            current_epoch: epochs completed. None: one more than at the last call.

        Raises:
            ZeusBSOTrainFailError: the run ends without convergence.
            RuntimeError: `on_train_begin` has not been called.
        """
        self.report(metric, self._epoch + 1 if current_epoch is None else current_epoch)
        self.raise_if_failed()

    def report(self, metric: float, current_epoch: int) -> None:
        """Report a validation as `on_evaluate` does, but do not raise if the run has failed. See `result` instead."""
        if self._batch_size is None:
            raise RuntimeError("call get_batch_size() and on_train_begin() before the first on_evaluate()")
        if self._stop and self.result is not None:
            return
        self._metric = metric
        self._note_best(metric)
        # A run without a checkpoint starts at epoch 0 again, behind its reported epochs. Its totals continue.
        self._last_epoch = max(self._epoch, current_epoch)
        if self.result is None:
            self._epoch = self._last_epoch
        if self._trial is None:
            return
        if not self._measurement.is_open:
            raise RuntimeError("call on_train_begin() before the first on_evaluate()")
        windows = self.ranks.gather(self._measurement.end())
        if self.ranks.rank == 0:
            self._report(windows, metric, self._trial)
        self._share_progress()
        if self.result is None or not self._stop:
            self._begin_window()

    def report_without_validation(self, current_epoch: int) -> None:
        """Report the last metric once more, after epochs that ended without a validation.

        A run that has trained for `max_epochs` has failed, even if nothing was validated at its end. Call this then, on
        all ranks. Does nothing before the first `report`, or after the verdict.

        Args:
            current_epoch: epochs completed.
        """
        if self._metric is None:
            return
        if not self._measurement.is_open:  # a resumed fit that has nothing left to train
            self._begin_window()
        self.report(self._metric, current_epoch)

    def describe_job(self) -> JobSummary | None:
        """Return the job's current state on the server, or None if the server does not answer or refuses."""
        if self._trial is None:
            return None
        try:
            return self._client.describe(self._trial.job_id)
        except (ServerUnreachable, ServerRefused) as error:
            log.info("The job's current state is unknown: %s", error)
            return None

    def keep_alive(self) -> None:
        """Send a heartbeat if the last contact with the server is at least a third of the lease ago.

        Call this after every step, or about as often. Usually no heartbeat is due, and the call takes no time.
        """
        if self.ranks.rank == 0 and self._trial is not None and self.result is None:
            self._outbox.keep_alive(self._trial, self.run_id)

    def limit_device_batch_size(self, limit: int) -> None:
        """Tell the server that the run goes on with less at a time, because memory ran out.

        Call this before the training goes on. The answers to the job's next runs then have the limit
        (`AskAnswer.max_device_batch_size`). A failure does not stop the training. A single rank may call this.

        Args:
            limit: the largest batch that a device takes at a time from now on.
        """
        trial = self._trial
        if trial is None:
            return
        try:
            self._client.heartbeat(
                HeartbeatRequest(
                    job_id=trial.job_id,
                    trial_number=trial.trial_number,
                    run_id=self.run_id,
                    max_device_batch_size=limit,
                )
            )
        except (ServerUnreachable, ServerRefused) as error:
            log.warning("The next run of job %s will not know of the lack of memory: %s", trial.job_id, error)
        else:
            log.info("The next runs of job %s take at most %d on a device at a time", trial.job_id, limit)

    def state_dict(self) -> dict[str, Any]:
        """Return the state to save in a checkpoint, with which another process resumes the run. Plain values only."""
        trial = self._trial
        if trial is None:
            return self._state_without_trial
        if self.ranks.size == 1 and self._measurement.is_open:  # with several ranks, all would have to save at once
            self._add(self._measurement.split())
        return self._reported_state(trial)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint's totals, or from the last reported totals where those are higher.

        Raises:
            BSOError: the state is of another run.
        """
        trial = self._trial
        if trial is None or not state:
            return
        check_trial(state, trial)
        self._energy_j = max(self._energy_j, state["energy_j"])
        self._time_s = max(self._time_s, state["time_s"])
        self._metric = state.get("metric")  # a state of an earlier version has none

    def report_probe(self, sizes: list[ProbedSize]) -> None:
        """Report a probe, which is the result of a few timed steps per batch size. Only a job's first probe counts.

        A failure does not stop the training. The log says what went wrong.

        Args:
            sizes: the result for each batch size. Empty: a probe of this job is impossible, and no later run tries it.
        """
        trial = self._trial
        if trial is None:
            return
        try:
            self._client.probe(
                ProbeRequest(job_id=trial.job_id, trial_number=trial.trial_number, run_id=self.run_id, sizes=sizes)
            )
        except (ServerUnreachable, ServerRefused, ValidationError) as error:
            log.warning("The probe of batch sizes could not be reported: %s", error)

    def raise_if_failed(self) -> None:
        """Raise if the verdict is that the run has failed. With `stop=False`, raise nothing.

        Raises:
            ZeusBSOTrainFailError: the run has failed.
        """
        if self._stop and self.result is not None and not self.result.converged and self._trial is not None:
            trial = self._trial
            raise ZeusBSOTrainFailError(trial.job_id, trial.trial_number, trial.batch_size, self.result.message)

    def finish(self, reason: str, *, unfit: bool = False) -> str | None:
        """End the run as `end` does, on all ranks together. All ranks receive a verdict that arrives meanwhile."""
        ruled_out = self.end(reason, unfit=unfit) if self.ranks.rank == 0 else None
        self._share_progress()
        return ruled_out

    def abandon(
        self,
        error: BaseException,
        unfit: str | None = None,
        current_epoch: int = 0,
        *,
        misconfigured: bool = False,
        max_device_batch_size: int | None = None,
    ) -> None:
        """End the run because of an error. Raises nothing, so the error itself remains the one that is raised.

        If the same error has ended runs with this batch size before, the server may rule the batch size out. The log
        and a note on the error then say so.

        An interrupted run stays open, because it may resume. If the training ran out of memory, its batch size counts
        as failed. Before the training has begun, a lack of memory does not count against the batch size, because
        another process may use the GPU. A single rank may call this without the others.

        Args:
            error: the error.
            unfit: why the job cannot be trained with this batch size, if every run would end like this. The batch size
                is then ruled out at once, unless it is the default.
            current_epoch: epochs completed, also those that no report tells of.
            misconfigured: whether the program's set-up is wrong. The error then says nothing about the batch size.
            max_device_batch_size: the largest batch that a device takes at a time in the job's next runs, because this
                training ran out of memory with more. The batch size has not failed then. None: no such limit.
        """
        self._epoch = max(self._epoch, current_epoch)
        if max_device_batch_size is None and is_out_of_memory(error) and self._measurement.is_open:
            self._report_out_of_memory()
        self._close_window()
        if is_interruption(error):
            return
        ruled_out = self.end(
            unfit or f"{type(error).__name__}: {error}",
            over=False,
            unfit=unfit is not None,
            misconfigured=misconfigured,
            max_device_batch_size=max_device_batch_size,
        )
        if ruled_out is not None:
            error.add_note(ruled_out)

    def end(
        self,
        reason: str,
        *,
        over: bool = True,
        unfit: bool = False,
        misconfigured: bool = False,
        max_device_batch_size: int | None = None,
    ) -> str | None:
        """End a run that will not report again. Does nothing if the run has a verdict.

        In a job that learns its target, a run whose training is over gets its verdict now.

        A single rank may call this without the others.

        Args:
            reason: why the run ends, shown to users.
            over: whether the run came to its regular end. False: the run broke. It then gets its trial back when it is
                launched again, also under a scheduler's run id.
            unfit: whether every run with this batch size would end like this. The batch size is then ruled out at once,
                unless it is the default.
            misconfigured: whether the program's set-up is wrong. The end then says nothing about the batch size.
            max_device_batch_size: as for `abandon`.

        Returns:
            What the server says if errors have ruled the batch size out; else None.
        """
        self._close_window()
        if self._trial is None:
            return None
        if self.result is None:
            self._send(last_chance=True)
        if self.result is not None:
            self._send_after(last_chance=True)
            return None
        if self._trial is None:  # a report was refused
            return None
        trial, self._trial = self._trial, None
        self._state_without_trial = self._reported_state(trial)
        if self._outbox:
            log.warning("Trial %d stays open until its lease expires: the server is unreachable", trial.trial_number)
            return None
        try:
            answer = self._client.end(
                TrialRequest(
                    job_id=trial.job_id,
                    batch_size=trial.batch_size,
                    trial_number=trial.trial_number,
                    run_id=self.run_id,
                    # an error may contain a file name that is not valid text
                    reason=reason.encode(errors="backslashreplace").decode()[:MAX_REASON_LENGTH],
                    over=over,
                    unfit=unfit,
                    misconfigured=misconfigured,
                    current_epoch=self._epoch,
                    report_number=self._last_number,
                    max_device_batch_size=max_device_batch_size,
                    process=self._process,
                )
            )
        except ServerUnreachable as error:
            log.warning("Trial %d stays open until its lease expires: %s", trial.trial_number, error)
        except ServerRefused as error:
            log.info("The server refused to end trial %d: %s", trial.trial_number, error)
        else:
            if answer.ruled_out is not None:
                message = f"batch size {trial.batch_size} is ruled out until the job is reset: it {answer.ruled_out}"
                log.warning("Job %s: %s", trial.job_id, message)
                return message
            if answer.verdict is not None:
                self._trial, self._at_verdict = trial, Reading(self._energy_j, self._time_s)
                self.result = answer.verdict
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.finish("the with block ended without a verdict")
            self.raise_if_failed()  # a missed report may have brought the verdict just now
        else:
            self.abandon(error)

    def _make_measurement(self) -> Machine | None:
        """Make this rank's measurement and return its machine, or None if another rank returns the same machine."""
        self._measurement = Measurement()
        is_first_of_node = self.ranks.local_rank == 0
        if self._monitor is not None and not is_first_of_node:
            return None
        meter = make_meter(self._monitor, self._gpu_indices)
        self._measurement = Measurement(meter)
        return meter.machine if is_first_of_node or meter.machine.source != "estimated" else None

    def _adopt(self, derived: DerivedJob, machine: Machine) -> JobSpec:
        """Return the job that the server knows by this identity. If it knows none, describe the job and register it.

        Raises:
            ServerUnreachable: no server answered, and there is no fallback.
            ServerRefused: the server refused to show or to register the job.
            BSOError: the job has another default batch size than this launch, and the launch insists on its own.
        """
        job_id = derived.job_id(machine)
        job = self.ranks.on_rank_zero(lambda: self._find(job_id))
        if job is None:
            described = self._derive(derived).model_copy(update={"job_id": job_id})
            job = self.ranks.on_rank_zero(lambda: self._register_or_find(described, machine))
        self.ranks.on_rank_zero(partial(derived.check_default, job))
        return job

    def _derive(self, derived: DerivedJob) -> JobSpec:
        return self.ranks.on_all(derived.derive)[0]

    def _find(self, job_id: str) -> JobSpec | None:
        """Return a job as the server knows it. None: it knows no such job, or does not answer and there is a fallback.

        Raises:
            ServerUnreachable: no server answered, and there is no fallback.
            ServerRefused: the server refused to show the job.
        """
        try:
            return JobSpec.model_validate(self._client.describe(job_id).spec.model_dump())
        except ServerRefused as refusal:
            if refusal.status != NOT_FOUND:
                raise
        except ServerUnreachable:
            if not self._fallback_to_default:
                raise
        return None

    def _register_or_find(self, job: JobSpec, machine: Machine) -> JobSpec:
        """Register a job and return it. Return that of the server if another run has just registered it otherwise."""
        try:
            self._client.register(complete_spec(job, machine))
        except ServerRefused as refusal:
            if refusal.status != CONFLICT:
                raise
            return self._find(job.job_id or "") or job
        except ServerUnreachable:
            if not self._fallback_to_default:
                raise
        return job

    def _ask(self, machine: Machine, saved: dict[str, Any] | None) -> tuple[AskAnswer | None, str]:
        """Return the trial and the run's name. The trial is None if the server is unreachable and there is a fallback.

        Raises:
            BSOError: the machine is unknown, the state is of another run, or the server refused or is unreachable.
        """
        if machine.gpu_model == "cpu":
            log.warning(
                "The run uses no GPU, so its energy is estimated as CPU time times %g W per busy core; "
                "the figures are labelled 'estimated'",
                WATTS_PER_BUSY_CORE,
            )
        spec = complete_spec(self.job, machine)
        if self.job.job_id is None:
            log.info("The job has no job_id, so it is named after its spec: %s", spec.job_id)
        if saved is not None:
            check_run(saved, spec.job_id, self.run_id)
        try:
            self._client.register(spec)
            return self._ask_by_name(spec.job_id or "")
        except ServerUnreachable as error:
            if not self._fallback_to_default:
                raise
            size = "the default batch size" if saved is None else "the checkpoint's batch size"
            log.warning("Training with %s, unreported: %s", size, error)
            return None, self.run_id

    def _ask_by_name(self, job_id: str) -> tuple[AskAnswer, str]:
        """Return the trial and the run's name.

        A scheduler's run id gets a number if its earlier run has ended, or if another process still trains it.
        """
        name = self.run_id
        for number in count(2):
            trial = self._ask_or_take_over(job_id, name)
            if self._run_id_is_fixed or (trial.outcome is None and trial.held_by is None):
                break
            name = f"{self.run_id}-{number}"
        return trial, name

    def _ask_or_take_over(self, job_id: str, name: str) -> AskAnswer:
        """Ask under a name. Take the trial over if its process has ended, or if the caller fixed the name."""
        takes_over = None
        while True:
            trial = self._client.ask(
                job_id,
                name,
                resumes=self._run_id_is_fixed,
                process=self._process,
                takes_over=takes_over,
                stops=self._stop,
            )
            takes_over = trial.held_by
            if takes_over is None:
                return trial
            if not self._run_id_is_fixed and still_runs(takes_over, has_lease=trial.status == "Dispatched"):
                return trial

    def _share_progress(self) -> None:
        """Copy rank 0's trial, verdict and totals to all ranks."""
        progress = self._trial, self.result, self._energy_j, self._time_s, self._at_verdict, self._last_number
        progress = self.ranks.gather(progress)[0]
        self._trial, self.result, self._energy_j, self._time_s, self._at_verdict, self._last_number = progress

    def _reported_state(self, trial: AskAnswer) -> dict[str, Any]:
        return reported_state(trial, self.run_id, self._energy_j, self._time_s, self._metric)

    def _report(self, windows: list[Window], metric: float, trial: AskAnswer) -> None:
        """Add the readings of all ranks to the totals, and report the totals."""
        problem = next((window.problem for window in windows if window.problem is not None), None)
        if problem is not None:
            self._stop_reporting(f"the energy meter failed: {problem}")
            return
        readings = [window.reading for window in windows if window.reading is not None]
        self._energy_j += sum(reading.energy_j for reading in readings)
        self._time_s += readings[0].time_s  # rank 0's time; the other ranks measured the same period
        if self.result is not None:
            self._send_after()
            return
        self._queue_report(trial, metric if math.isfinite(metric) else None)  # JSON has neither NaN nor infinity
        self._send()

    def _queue_report(self, trial: AskAnswer, metric: float | None, *, out_of_memory: bool = False) -> None:
        """Put a report of the current totals into the outbox."""
        self._last_number += 1
        try:
            report = ReportRequest(
                job_id=trial.job_id,
                batch_size=trial.batch_size,
                trial_number=trial.trial_number,
                run_id=self.run_id,
                time=self._time_s,
                energy=self._energy_j,
                metric=metric,
                current_epoch=self._epoch,
                report_number=self._last_number,
                energy_source=self._machine.source if self._machine else None,
                accumulate_grad_batches=self.accumulate_grad_batches,
                out_of_memory=out_of_memory,
                process=self._process,
            )
        except ValidationError as error:
            self._stop_reporting(f"the report is not valid: {error}")
        else:
            self._outbox.put(report)

    def _send(self, *, last_chance: bool = False) -> None:
        """Send the reports in the outbox, and store the verdict if an answer has one."""
        try:
            self._outbox.send(last_chance=last_chance)
        except ServerRefused as error:
            self._last_number -= len(self._outbox)  # a later report on the server is of another process
            self._stop_reporting(f"the server refused a report: {error}")
            return
        final = self._outbox.final
        if final is not None and self.result is None:
            self.result, self._at_verdict = self._outbox.answer, Reading(final.energy, final.time)
            self._send_after()  # reports before this one may have been missed, so that the verdict comes late

    def _send_after(self, *, last_chance: bool = False) -> None:
        """Report what the training has used since the verdict. Nothing depends on it, so a failure is only logged."""
        trial, after = self._trial, self.spent_after
        if self._stop or trial is None or self.ranks.rank != 0 or after == Reading(0.0, 0.0):
            return
        try:
            request = AfterRequest(
                job_id=trial.job_id,
                trial_number=trial.trial_number,
                run_id=self.run_id,
                time=after.time_s,
                energy=after.energy_j,
                metric=self._best_metric,
            )
        except ValidationError as error:
            log.info("What the training uses after its verdict is not valid, and not reported: %s", error)
        else:
            self._outbox.send_after(request, last_chance=last_chance)

    def _note_best(self, metric: float) -> None:
        if math.isfinite(metric):
            best = max if self.job.higher_is_better_metric else min
            self._best_metric = metric if self._best_metric is None else best(self._best_metric, metric)

    def _report_out_of_memory(self) -> None:
        trial = self._trial
        if trial is None or self.result is not None:
            return
        self._add(self._measurement.end().reading)
        self._queue_report(trial, None, out_of_memory=True)
        self._send(last_chance=True)
        if self.result is not None:
            log.warning("%s. Launch the training again to get another batch size", self.result.message)

    def _begin_window(self) -> None:
        if self._trial is not None:
            self._measurement.begin()

    def _close_window(self) -> None:
        """Close the window of a single rank. A checkpoint that is saved afterwards still holds what was used in it.

        With several ranks it stays open: closing it waits for the GPU, whose work may wait for a rank that is gone.
        """
        if self._measurement.is_open and self.ranks.size == 1:
            self._add(self._measurement.end().reading)

    def _add(self, reading: Reading | None) -> None:
        """Add a reading of this rank to the totals."""
        if reading is not None:
            self._energy_j += reading.energy_j
            self._time_s += reading.time_s

    def _stop_reporting(self, reason: str) -> None:
        """Let the training continue without the optimizer, and end the trial with the reason."""
        log.warning("Training continues without the batch-size optimizer: %s", reason)
        self._outbox.clear()
        self.end(reason)
        self._state_without_trial = unreported_state(self._batch_size or self.job.default_batch_size)


def server_address(server_url: str | None) -> str | None:
    """Return the given address, else the address from the environment, else None."""
    return server_url or os.environ.get(variables.SERVER_URL) or None
