"""The plain data that decisions read, and the decisions themselves.

No logic lives here, except how choices compare, and the text that tells a user what to do with a stuck job.
"""

import math
from dataclasses import dataclass, replace
from enum import StrEnum


class NothingConverges(Exception):
    """Raised by `choose` when no batch size is left to try.

    The user resets the job, or registers a new job with a relaxed spec.
    """


def stuck_message(spec: "Spec", reason: str, *, converged: bool) -> str:
    """Return the text that tells a user what to do when no batch size is left to try.

    Args:
        spec: the job's spec.
        reason: why no batch size is left.
        converged: whether a run of the job has converged. Before that there is no cost bound to raise.
    """
    ease = "Lower" if spec.higher_is_better_metric else "Raise"
    knobs = "max_epochs or beta_knob" if converged and spec.beta_knob is not None else "max_epochs"
    return (
        f"{reason}, so no batch size is left to try. {ease} target_metric, raise {knobs}, or add batch sizes, and "
        "register the result as a new job; or reset this job to start a new exploration"
    )


class TrialType(StrEnum):
    """Why a trial got its batch size."""

    PRUNING = "Pruning"
    MAB = "MAB"
    CONCURRENT = "Concurrent"
    """Dispatched while another run explored for the pruning round. It never drives the pruning."""
    PAUSED = "Paused"
    """The default batch size, dispatched while the job was paused."""
    CALIBRATION = "Calibration"
    """The default batch size, dispatched while the job had no target. The target is learnt from such runs."""


class TrialStatus(StrEnum):
    """The status of a trial."""

    DISPATCHED = "Dispatched"
    """Dispatched and still running."""
    SUCCEEDED = "Succeeded"
    """Ended with a verdict: converged, failed or priced out."""
    FAILED = "Failed"
    """Ended without a verdict. The trial is no result for its batch size."""
    CALIBRATED = "Calibrated"
    """Ended as a calibration run. The verdict follows when the target is learnt."""


class Stage(StrEnum):
    """The current stage of a job."""

    CALIBRATION = "Calibration"
    """The job has no target yet, and learns one."""
    PRUNING = "Pruning"
    MAB = "MAB"
    STUCK = "Stuck"
    """No batch size is left to try. The user must act."""


class VerdictCode(StrEnum):
    """The meaning of a report, as a code for programs."""

    CONTINUE = "continue"
    CONVERGED = "converged"
    COST_BOUND = "cost_bound"
    MAX_EPOCHS = "max_epochs"
    DIVERGED = "diverged"
    OUT_OF_MEMORY = "out_of_memory"
    PRICED_OUT = "priced_out"
    """The first epoch has cost too much for the run to be worth its cost. Its batch size has not failed."""
    CALIBRATED = "calibrated"
    """The run ends, and the target is learnt from it. The run has reached that target, whatever it will be."""
    TRAINING_OVER = "training_over"
    """The training ended by its own rules, and the run has not reached the learnt target."""


class EndCode(StrEnum):
    """Why a trial ended without a verdict, as a code for programs."""

    ENDED = "ended"
    """Its caller ended it: the run broke by an error."""
    LEFT = "left"
    """Its training came to its end."""
    STOPPED = "stopped"
    """A user ended it."""
    LOST = "lost"
    """Its lease expired."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """The part of a job's spec that decisions depend on.

    Ranges and defaults are those of the wire. `batch_sizes` ascend, and `max_power` is in watts.
    """

    batch_sizes: tuple[int, ...]
    default_batch_size: int
    eta_knob: float
    beta_knob: float | None
    target_metric: float | None
    """None: not known yet. `core.calibration` learns it."""
    higher_is_better_metric: bool
    max_epochs: int
    num_pruning_rounds: int = 2
    window_size: int = 0
    mab_prior_mean: float = 0.0
    mab_prior_precision: float = 0.0
    mab_num_explorations: int = 2
    max_power: float
    policy: str = "zeus"
    calibration_runs: int = 3
    target_tolerance: float = 0.0


@dataclass(frozen=True, slots=True)
class Trial:
    """One run. Energy, time and epochs are the last reported values.

    `converged` is None while there is no verdict, and if the run was priced out: it ended before it could show whether
    it converges.

    `started` and `ended` are the revisions of the job at which the run started and ended. They are a logical clock:
    the order of events does not depend on the time of day. `ended` is None while the trial runs.
    """

    number: int
    batch_size: int
    type: TrialType
    status: TrialStatus
    converged: bool | None
    energy_j: float
    time_s: float
    epochs: int
    started: int
    ended: int | None
    bound_factor: float | None = 1.0
    """Multiple of the usual cost bound that the run may cost; None: it has no bound."""
    epoch_limit_j: float | None = None
    """Highest cost of the first epoch, in joules, after which the run goes on; None: there is no limit."""
    out_of_memory: bool = False
    """Whether the run failed because its batch size did not fit in memory."""

    @property
    def is_priced_out(self) -> bool:
        """Whether the run ended because its first epoch had cost too much."""
        return self.status is TrialStatus.SUCCEEDED and self.converged is None


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """The cost of an epoch with a batch size, estimated from a few timed steps.

    If the batch size does not fit in memory, energy and time mean nothing.
    """

    batch_size: int
    fits: bool
    epoch_energy_j: float
    epoch_time_s: float


@dataclass(frozen=True, slots=True)
class Breakdown:
    """The end of a run by an error, before it had completed an epoch, at the job's `revision`."""

    batch_size: int
    error: str
    revision: int
    unfit: bool = False
    """Whether the caller knows that every run with this batch size ends like this, also after completed epochs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedSummary:
    """A summary of ended trials: those that have a verdict.

    It stands in for these trials in a `JobState`, so a long history is not read again.

    Each policy has its own subclass: `backend.core.zeus.results.Results` and `backend.core.gp_ucb.belief.Belief`.
    """

    last: Trial | None = None
    """The covered trial that ended last. The summary also covers every trial that ended before it."""

    @property
    def last_revision(self) -> int:
        """The revision of the job at which the last covered trial ended; 0 if there is none."""
        return 0 if self.last is None else self.last.ended or 0

    @property
    def sizes_without_result(self) -> tuple[int, ...]:
        """The batch sizes for which decisions also read lost trials."""
        return ()

    @property
    def has_just_drifted(self) -> bool:
        """Whether the last covered trial has shown that the costs of all batch sizes have changed."""
        return False


@dataclass(frozen=True, slots=True)
class JobState:
    """Everything that a decision may read.

    `trials` are those of the job since its last reset, by rising number. `summary` stands in for the ended trials that
    `trials` leaves out; `policies.compact` makes it. `probe_results` come from a probe since the last reset, if there
    was one. `breakdowns` are those since the last reset. `working_sizes` are the batch sizes with which a run has
    completed an epoch or converged. They are left out if `core.breakdowns` does not need them. `calibrated` counts the
    calibration runs that have ended, while the spec has no target. `out_of_reach` says that a learnt target has become
    out of reach. Both are for display: no decision reads them.
    """

    spec: Spec
    trials: tuple[Trial, ...]
    summary: EndedSummary | None = None
    probe_results: tuple[ProbeResult, ...] = ()
    breakdowns: tuple[Breakdown, ...] = ()
    working_sizes: frozenset[int] = frozenset()
    calibrated: int = 0
    out_of_reach: bool = False


@dataclass(frozen=True, slots=True)
class Report:
    """The result of one validation. Energy and time count from the start of the run's training.

    `metric` is None if it was NaN or infinite, or if the run is out of memory.
    """

    metric: float | None
    energy_j: float
    time_s: float
    epoch: int
    out_of_memory: bool = False


@dataclass(frozen=True, slots=True)
class Choice:
    """The batch size for a run, and the reason."""

    batch_size: int
    type: TrialType
    reason: str
    bound_factor: float | None = 1.0
    """Multiple of the usual cost bound that the run may cost; None: it has no bound."""
    epoch_limit_j: float | None = None
    """Highest cost of the first epoch, in joules, after which the run goes on; None: there is no limit."""

    def is_as_stored(self, stored: "Choice") -> bool:
        """Whether this choice, made again, is the stored one. Reasons do not count.

        A stored choice may lack its limit: that of a training that goes on after its verdict, or of an earlier version.
        Another machine computes other last digits.
        """
        limit_j, then_j = self.epoch_limit_j, stored.epoch_limit_j
        if then_j is not None and (limit_j is None or not math.isclose(limit_j, then_j, rel_tol=1e-6)):
            return False
        return replace(self, reason=stored.reason, epoch_limit_j=then_j) == stored


@dataclass(frozen=True, slots=True)
class Expectation:
    """A policy's estimate of the cost of a converging run with a batch size; None: there is no estimate yet."""

    batch_size: int
    expected_j: float | None
    sd_j: float | None
    """Standard deviation of the estimate; 0: the observed runs show no spread."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The meaning of a report for its run, and the reason."""

    code: VerdictCode
    reason: str

    @property
    def stop(self) -> bool:
        """Whether the run ends."""
        return self.code is not VerdictCode.CONTINUE

    @property
    def converged(self) -> bool:
        """Whether the run ends because it reached the target, be it one that is still to be learnt from it."""
        return self.code in (VerdictCode.CONVERGED, VerdictCode.CALIBRATED)

    @property
    def result(self) -> bool | None:
        """What the end of the run says of its batch size: it converged, or it failed; None: neither."""
        return None if self.code is VerdictCode.PRICED_OUT else self.converged
