"""One run under the optimizer, without any framework: ask, measure, report, stop.

`callback.py` calls this at Lightning's moments. Once training runs, nothing here raises but the verdict:
what cannot be measured or reported is said once in the log, and sent later if possible.
"""

import logging
import math
import os
import uuid
from dataclasses import dataclass
from itertools import count
from types import TracebackType
from typing import Any, Self

from pydantic import ValidationError

from lightning_bso.client import BsoClient
from lightning_bso.energy import WATTS_PER_BUSY_CORE, EnergyMeter, EnergyMonitor, Machine, Reading, joined, make_meter
from lightning_bso.errors import (
    BSOError,
    ServerRefused,
    ServerUnreachable,
    ZeusBSOTrainFailError,
    is_interruption,
    is_out_of_memory,
)
from lightning_bso.identity import check_run_id, complete_spec, scheduled_run_id
from lightning_bso.outbox import Outbox
from lightning_bso.ranks import Ranks
from lightning_bso.wire import (
    MAX_REASON_LENGTH,
    AskAnswer,
    JobSpec,
    JobSummary,
    ProbedSize,
    ProbeRequest,
    ReportAnswer,
    ReportRequest,
    TrialRequest,
)

log = logging.getLogger(__name__)

SERVER_URL_VARIABLE = "ZEUS_BSO_SERVER_URL"
TOKEN_VARIABLE = "ZEUS_BSO_TOKEN"  # noqa: S105 - the name of a variable


class BatchSizeOptimizer:
    """Asks the server for the batch size of this run, and reports to it what the run costs.

    Example:
        >>> bso = BatchSizeOptimizer(server_url="http://127.0.0.1:8000", job=JobSpec(...))
        >>> batch_size = bso.get_batch_size()
        >>> bso.on_train_begin()
        >>> while not bso.training_finished:
        ...     train_one_epoch(batch_size)
        ...     bso.on_evaluate(validate())

    As a context manager it also ends the trial when the block is left by an error, so that its batch size
    is free at once and not only after the lease. Ctrl-C leaves the trial open.

    Args:
        monitor: a ZeusMonitor for the GPUs of this run; None: made if the run uses GPUs.
        server_url: the server's address; None: `$ZEUS_BSO_SERVER_URL`.
        job: the training that recurs. Without `job_id` the job is named after its prefix and a hash of the
            spec, so that the same script launched again goes on with the same job.
        token: access token; None: `$ZEUS_BSO_TOKEN`, if set.
        run_id: name of this run; a process that asks again under it gets the same trial. None: `$SLURM_JOB_ID` or
            `$TORCHELASTIC_RUN_ID`, with a number for each run after one that came to its end, or else a new one.
        fallback_to_default: train with the default batch size, unreported, when no server answers the ask.
        gpu_indices: the GPUs of this process when no monitor is given, none for a run on the CPU; None: all that Zeus
            sees, if this process uses any.
        ranks: the processes of the run, `TorchRanks()` where it has several: all of them make this object and call
            its methods; rank 0 asks and reports for them all. A monitor then is the one of each node's first process.

    Raises:
        ValueError: there is no server's address, or it is not one; or `run_id` cannot be a name.
    """

    def __init__(
        self,
        monitor: EnergyMonitor | None = None,
        server_url: str | None = None,
        job: JobSpec | dict[str, Any] | None = None,
        *,
        token: str | None = None,
        run_id: str | None = None,
        fallback_to_default: bool = False,
        gpu_indices: list[int] | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        if job is None:
            raise ValueError("job is missing: give a JobSpec, or a dict of one")
        address = server_address(server_url)
        if address is None:
            raise ValueError(f"server_url is missing: give it, or set {SERVER_URL_VARIABLE}")
        check_run_id(run_id)
        self._client = BsoClient(address, token or os.environ.get(TOKEN_VARIABLE))
        self._job = JobSpec.model_validate(job)
        self._monitor = monitor
        self._gpu_indices = gpu_indices
        self.ranks = ranks or Ranks()
        """The processes of the run."""
        self._fallback_to_default = fallback_to_default
        self._run_id_given = run_id is not None
        self.run_id = run_id or scheduled_run_id() or uuid.uuid4().hex
        """Name of this run; give it to the process that resumes it."""
        self._meter: EnergyMeter | None = None
        self._machine: Machine | None = None
        self._trial: AskAnswer | None = None
        self._batch_size: int | None = None
        self._left_with: dict[str, Any] = {}  # what a checkpoint must hold once there is no trial
        self._energy_j = self._time_s = 0.0
        self._epoch = self._last_number = 0
        self._outbox = Outbox(self._client)
        self._window: _Window | None = None
        self.accumulate_grad_batches = 1
        """Parts that each device takes its share of a batch in (gradient accumulation); recorded with the run."""
        self.result: ReportAnswer | None = None
        """The verdict that ended the run, None before it."""

    @property
    def trial(self) -> AskAnswer | None:
        """What the server gave this run; None before `get_batch_size`, and once it is no longer reported."""
        return self._trial

    @property
    def training_finished(self) -> bool:
        """Whether the run is over: by a verdict, or, when no server judges it, after its `max_epochs`."""
        return self.result is not None or self._epoch >= self._job.max_epochs

    @property
    def probe_wanted(self) -> bool:
        """Whether the server would like to know what an epoch costs at the other batch sizes (see `report_probe`)."""
        return self._trial is not None and self._trial.probe_wanted

    @property
    def meter(self) -> EnergyMeter | None:
        """What measures the run; None before `get_batch_size`."""
        return self._meter

    @property
    def cost_j(self) -> float | None:
        """Cost so far in joules, as the server has told rank 0; None before the first report."""
        return None if self._outbox.answer is None else self._outbox.answer.cost

    @property
    def spent(self) -> Reading:
        """What the run has cost so far, as far as it has been reported."""
        return Reading(self._energy_j, self._time_s)

    @property
    def epochs(self) -> int:
        """Epochs that the run has reported."""
        return self._epoch

    def get_batch_size(self, resumed_from: dict[str, Any] | None = None) -> int:
        """Register the job if need be, and ask for this run's batch size. Call it before training.

        Args:
            resumed_from: what `state_dict` returned in the run that this process goes on with; rank 0's counts. None: a
                run that begins, or goes on under its `run_id`.

        Returns:
            The global batch size to train with.

        Raises:
            EnergyUnavailable: the run uses GPUs whose energy cannot be read.
            ServerUnreachable: no server answered, and there is no fallback.
            ServerRefused: the spec is not valid or differs from the job's, or no batch size is left.
            BSOError: the run of this `run_id` has ended already, or `resumed_from` is another's, or of another job.
        """
        saved = self.ranks.gather(resumed_from)[0]
        if saved is not None and saved.get("unreported"):
            self._batch_size = self._check_unreported(int(saved["batch_size"]))
            self._left_with = saved
            log.warning("This run was not reported before it was interrupted, and goes on unreported")
            return self._batch_size
        if saved is not None and not self._run_id_given:
            self.run_id, self._run_id_given = saved["run_id"], True
        machines = self.ranks.on_all(self._make_meter)
        machine = self._machine = joined([machine for machine in machines if machine is not None])
        trial, self.run_id = self.ranks.from_zero(lambda: self._ask(machine, saved))
        if trial is None:
            self._batch_size = self._job.default_batch_size if saved is None else int(saved["batch_size"])
            self._left_with = _unreported(self._batch_size)
            return self._batch_size
        if trial.outcome is not None:
            remedy = (
                "under another run_id" if saved is None else "without its checkpoint, and save it in another folder"
            )
            raise BSOError(
                f"run {self.run_id!r} of job {trial.job_id!r} (trial {trial.trial_number}) has ended already: "
                f"{trial.outcome}. Launch a new run {remedy}"
            )
        self._trial = trial
        self._batch_size = trial.batch_size
        self._energy_j, self._time_s = trial.energy, trial.time
        self._epoch, self._last_number = trial.current_epoch, trial.report_number
        self._outbox.was_heard()
        if self.ranks.rank == 0:
            log.info(
                "Job %s, trial %d: batch size %d (%s)", trial.job_id, trial.trial_number, trial.batch_size, trial.reason
            )
        return trial.batch_size

    def on_train_begin(self) -> None:
        """Begin to measure. Call it when training begins, after set-up.

        Raises:
            RuntimeError: `get_batch_size` was not called before.
        """
        if self._batch_size is None:
            raise RuntimeError("call get_batch_size() before on_train_begin()")
        self._begin_window()

    def on_evaluate(self, metric: float, current_epoch: int | None = None) -> None:
        """Report what a validation found; afterwards look at `training_finished`.

        Args:
            metric: the validation metric; of several ranks' rank 0's counts. NaN or infinity: the run has diverged,
                and fails.
            current_epoch: epochs completed; None: one more than at the last call.

        Raises:
            ZeusBSOTrainFailError: the run has not converged, and ends.
            RuntimeError: `on_train_begin` was not called before.
        """
        self.report(metric, self._epoch + 1 if current_epoch is None else current_epoch)
        self.raise_if_failed()

    def report(self, metric: float, current_epoch: int) -> None:
        """Like `on_evaluate`, but a failed run does not raise: see `result`."""
        if self._batch_size is None:
            raise RuntimeError("call get_batch_size() and on_train_begin() before the first on_evaluate()")
        if self.result is not None:
            return
        # A run that began anew under its name is behind what it has reported; what it costs goes on.
        self._epoch = max(self._epoch, current_epoch)
        if self._trial is None:
            return
        if self._window is None:
            raise RuntimeError("call on_train_begin() before the first on_evaluate()")
        windows = self.ranks.gather(self._end_window())
        if self.ranks.rank == 0:
            self._report(windows, metric, self._trial)
        self._agree()
        if self.result is None:
            self._begin_window()

    def describe_job(self) -> JobSummary | None:
        """The job as it stands on the server; None if the server does not tell, which the training need not mind."""
        if self._trial is None:
            return None
        try:
            return self._client.describe(self._trial.job_id)
        except (ServerUnreachable, ServerRefused) as error:
            log.info("How the job stands is not known: %s", error)
            return None

    def keep_alive(self) -> None:
        """Let the server know that the run is alive, where it has not heard of it for a third of the lease.

        Call it after every step, or about as often: where there is nothing to do it takes no time.
        """
        if self.ranks.rank == 0 and self._trial is not None and self.result is None:
            self._outbox.keep_alive(self._trial)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold for the run to go on in another process; plain values only."""
        trial = self._trial
        if trial is None:
            return self._left_with
        if self.ranks.size == 1 and self._window is not None:  # several would have to be asked all at once
            window = self._end_window()
            if window.problem is None and window.reading is not None:
                self._energy_j += window.reading.energy_j
                self._time_s += window.reading.time_s
            self._begin_window()
            if window.problem is not None and self._window is not None:
                self._window.problem = window.problem
        return self._state(trial)

    def _state(self, trial: AskAnswer) -> dict[str, Any]:
        return {
            "job_id": trial.job_id,
            "run_id": self.run_id,
            "trial_number": trial.trial_number,
            "batch_size": trial.batch_size,
            "energy_j": self._energy_j,
            "time_s": self._time_s,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint's totals, or from those last reported where these are higher.

        Raises:
            BSOError: it comes from another run.
        """
        trial = self._trial
        if trial is None or not state:
            return
        if state.get("unreported"):
            raise BSOError(
                "the checkpoint comes from a run that was not reported, and what that had cost is not known. To go on "
                "with that run let its checkpoint be looked into beforehand: fit(…, weights_only=False), or "
                "get_batch_size(resumed_from=…) in a loop of your own; to begin a new one take its weights alone"
            )
        if (state["job_id"], state["trial_number"]) != (trial.job_id, trial.trial_number):
            raise _of_another_run(state, f"trial {trial.trial_number} of job {trial.job_id}")
        self._energy_j = max(self._energy_j, state["energy_j"])
        self._time_s = max(self._time_s, state["time_s"])

    def report_probe(self, sizes: list[ProbedSize]) -> None:
        """Report what timing a few steps of batch sizes told; the job's first such report counts.

        Like all that is reported it is no reason for a training to fail: what goes wrong is said in the log.

        Args:
            sizes: what was found. Empty: there can be no probe of this job, and none is wanted any more.
        """
        trial = self._trial
        if trial is None:
            return
        try:
            self._client.probe(ProbeRequest(job_id=trial.job_id, trial_number=trial.trial_number, sizes=sizes))
        except (ServerUnreachable, ServerRefused, ValidationError) as error:
            log.warning("What the probe of batch sizes told is lost: %s", error)

    def raise_if_failed(self) -> None:
        """Raise if the verdict is that the run has failed.

        Raises:
            ZeusBSOTrainFailError: it is.
        """
        if self.result is not None and not self.result.converged and self._trial is not None:
            trial = self._trial
            raise ZeusBSOTrainFailError(trial.job_id, trial.trial_number, trial.batch_size, self.result.message)

    def finish(self, reason: str) -> None:
        """Like `end`, of a run that all ranks leave together: all know of a verdict that comes at the last moment."""
        if self.ranks.rank == 0:
            self.end(reason)
        self._agree()

    def abandon(self, error: BaseException) -> None:
        """End a run that an error broke. If its training ran out of memory, its batch size counts as failed.

        Before the training began it says nothing of the batch size: another process may hold the GPU.
        One that was interrupted is left open, as it may go on later. Any rank may call this by itself. What breaks the
        run is the error, and nothing is raised here.
        """
        if is_interruption(error):
            return
        if is_out_of_memory(error) and self._window is not None:
            self._report_out_of_memory()
        self.end(f"{type(error).__name__}: {error}", over=False)

    def end(self, reason: str, *, over: bool = True) -> None:
        """End a run that has no verdict and will not report again; one with a verdict is left as it is.

        Any rank may call this by itself, when the others are not to be waited for.

        Args:
            reason: why, for the people who look at it.
            over: whether the run came to its end. False: it broke, and gets its trial back by a scheduler's name, too.
        """
        if self._trial is None or self.result is not None:
            return
        self._send(last_chance=True)
        if self.result is not None or self._trial is None:  # what was sent has brought the verdict, or was refused
            return
        trial, self._trial = self._trial, None
        self._left_with = self._state(trial)
        if self._outbox:
            log.warning("Trial %d is left open, to end with its lease: the server does not answer", trial.trial_number)
            return
        try:
            self._client.end(
                TrialRequest(
                    job_id=trial.job_id,
                    batch_size=trial.batch_size,
                    trial_number=trial.trial_number,
                    # a file's name in an error may hold what is no text
                    reason=reason.encode(errors="backslashreplace").decode()[:MAX_REASON_LENGTH],
                    over=over,
                    report_number=self._last_number,
                )
            )
        except ServerUnreachable as error:
            log.warning("Trial %d is left open, to end with its lease: %s", trial.trial_number, error)
        except ServerRefused as error:
            log.info("Trial %d is not to be ended: %s", trial.trial_number, error)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.finish("left without a verdict")
            self.raise_if_failed()  # a report that was made up for may have brought the verdict
        else:
            self.abandon(error)

    def _make_meter(self) -> Machine | None:
        """Make what measures this rank's part, and tell the machine; None if another rank tells the same one."""
        self._meter = None
        first_of_node = self.ranks.local_rank == 0
        if self._monitor is None or first_of_node:
            self._meter = make_meter(self._monitor, self._gpu_indices)
        if self._meter is None or (self._meter.machine.source == "estimated" and not first_of_node):
            return None
        return self._meter.machine

    def _ask(self, machine: Machine, saved: dict[str, Any] | None) -> tuple[AskAnswer | None, str]:
        """The trial and its run's name; no trial, if the server does not answer and that is all right."""
        if machine.gpu_model == "cpu":
            log.warning(
                "No GPU is used, so energy is estimated as CPU time times %g W per busy core; "
                "it is labelled 'estimated' wherever it appears",
                WATTS_PER_BUSY_CORE,
            )
        spec = complete_spec(self._job, machine)
        if self._job.job_id is None:
            log.info(
                "No job_id given: this is job %s, named after its spec; the same spec goes on with it", spec.job_id
            )
        if saved is not None and (saved["job_id"], saved["run_id"]) != (spec.job_id, self.run_id):
            raise _of_another_run(saved, f"run {self.run_id!r} of job {spec.job_id}")
        try:
            self._client.register(spec)
            return self._ask_by_name(spec.job_id or "")
        except ServerUnreachable as error:
            if not self._fallback_to_default:
                raise
            size = "the default batch size" if saved is None else "the batch size of before"
            log.warning("%s. Training with %s, unreported", error, size)
            return None, self.run_id

    def _check_unreported(self, batch_size: int) -> int:
        """The batch size of a checkpoint that names no job, if it may be of this one."""
        if batch_size not in self._job.batch_sizes or batch_size % self.ranks.size:
            raise BSOError(
                f"the checkpoint comes from a run that was not reported, with batch size {batch_size}. That is none of "
                f"this job's ({', '.join(map(str, self._job.batch_sizes))}), or cannot be divided among its "
                f"{self.ranks.size} processes. Go on with that run as it was; to begin a new one take its weights alone"
            )
        return batch_size

    def _ask_by_name(self, job_id: str) -> tuple[AskAnswer, str]:
        """The trial, under the next name if a scheduler's name stands for a run that came to its end."""
        name = self.run_id
        for number in count(2):
            trial = self._client.ask(job_id, name, resumes=self._run_id_given)
            if trial.outcome is None or self._run_id_given:
                break
            name = f"{self.run_id}-{number}"
        return trial, name

    def _agree(self) -> None:
        """Let every rank know what rank 0 knows of the run."""
        known = self._trial, self.result, self._energy_j, self._time_s, self._last_number
        self._trial, self.result, self._energy_j, self._time_s, self._last_number = self.ranks.gather(known)[0]

    def _report(self, windows: list["_Window"], metric: float, trial: AskAnswer) -> None:
        """Add what the ranks have measured to the totals, and report them."""
        problem = next((window.problem for window in windows if window.problem is not None), None)
        if problem is not None:
            self._give_up(f"the energy meter failed: {problem}")
            return
        readings = [window.reading for window in windows if window.reading is not None]
        self._energy_j += sum(reading.energy_j for reading in readings)
        self._time_s += readings[0].time_s  # rank 0's; the others' is the same time
        self._put_down(trial, metric if math.isfinite(metric) else None)  # JSON knows neither NaN nor infinity
        self._send()

    def _put_down(self, trial: AskAnswer, metric: float | None, *, out_of_memory: bool = False) -> None:
        """Make the next report of what has been measured, to be sent."""
        self._last_number += 1
        try:
            report = ReportRequest(
                job_id=trial.job_id,
                batch_size=trial.batch_size,
                trial_number=trial.trial_number,
                time=self._time_s,
                energy=self._energy_j,
                metric=metric,
                current_epoch=self._epoch,
                report_number=self._last_number,
                energy_source=self._machine.source if self._machine else None,
                accumulate_grad_batches=self.accumulate_grad_batches,
                out_of_memory=out_of_memory,
            )
        except ValidationError as error:
            self._give_up(f"this cannot be reported: {error}")
        else:
            self._outbox.put(report)

    def _send(self, *, last_chance: bool = False) -> None:
        """Send what has not been sent, and take the verdict if one comes."""
        try:
            self._outbox.send(last_chance=last_chance)
        except ServerRefused as error:
            self._give_up(f"the server refused a report: {error}")
            return
        if self._outbox.answer is not None and self._outbox.answer.stop_train:
            self.result = self._outbox.answer

    def _report_out_of_memory(self) -> None:
        trial = self._trial
        if trial is None or self.result is not None:
            return
        reading = self._end_window().reading or Reading(0.0, 0.0)
        self._energy_j += reading.energy_j
        self._time_s += reading.time_s
        self._put_down(trial, None, out_of_memory=True)
        self._send(last_chance=True)
        if self.result is not None:
            log.warning("%s. Launch the training again for another batch size", self.result.message)

    def _begin_window(self) -> None:
        if self._trial is None:
            return
        self._window = _Window()
        try:
            if self._meter is not None:
                self._meter.begin()
        except Exception as error:  # whatever a driver comes up with must not end the training
            self._window.problem = f"{type(error).__name__}: {error}"

    def _end_window(self) -> "_Window":
        """What this rank has measured since the window was begun."""
        window, self._window = self._window or _Window(), None
        try:
            if self._meter is not None and window.problem is None:
                window.reading = reading = self._meter.end()
                if not (reading.energy_j >= 0 and reading.time_s >= 0):
                    raise ValueError(f"it told {reading.energy_j} J in {reading.time_s} s")
        except Exception as error:
            window.problem = f"{type(error).__name__}: {error}"
        return window

    def _give_up(self, reason: str) -> None:
        """Let the training go on without the optimizer, and mark the trial."""
        log.warning("Training goes on without the batch-size optimizer: %s", reason)
        self._outbox.clear()
        self.end(reason)
        self._left_with = _unreported(self._batch_size or self._job.default_batch_size)


@dataclass(slots=True)
class _Window:
    """What one rank has measured between two reports, or why it has not."""

    reading: Reading | None = None
    """None of a rank whose part another one measures."""
    problem: str | None = None


def _unreported(batch_size: int) -> dict[str, Any]:
    """What a checkpoint holds of a run that is not reported: what it costs will not be known."""
    return {"unreported": True, "batch_size": batch_size}


def _of_another_run(saved: dict[str, Any], this: str) -> BSOError:
    return BSOError(
        f"the checkpoint comes from trial {saved['trial_number']} of job {saved['job_id']}, with batch size "
        f"{saved['batch_size']}, and this is {this}. To go on with that run give run_id={saved['run_id']!r} and its "
        "job; to begin a new one take its weights alone"
    )


def server_address(server_url: str | None) -> str | None:
    """The address given, else the environment's, else None."""
    return server_url or os.environ.get(SERVER_URL_VARIABLE) or None
