"""The plain data that decisions are made of and the decisions themselves."""

from dataclasses import dataclass
from enum import StrEnum


class NothingConverges(Exception):
    """Raised by `choose` when no batch size is left. The user relaxes the spec or resets the job."""


def way_out(spec: "Spec", reason: str, *, converged: bool) -> str:
    """What a person can do when no batch size is left.

    Args:
        spec: the job's spec.
        reason: why none is left.
        converged: whether a run has converged, without which there is no bound on the cost to be raised.
    """
    ease = "Lower" if spec.higher_is_better_metric else "Raise"
    knobs = "max_epochs or beta_knob" if converged and spec.beta_knob is not None else "max_epochs"
    return (
        f"{reason}, so none is left to give. {ease} target_metric, raise {knobs}, or add batch sizes, and register "
        "that as a new job; or reset this one to explore anew"
    )


class TrialType(StrEnum):
    """Why a trial was given its batch size."""

    PRUNING = "Pruning"
    MAB = "MAB"
    CONCURRENT = "Concurrent"
    """Given while the exploration of the round was still running; never drives the pruning."""
    PAUSED = "Paused"
    """The default, given while a person had told the job to decide nothing."""


class TrialStatus(StrEnum):
    """How far a trial has come."""

    DISPATCHED = "Dispatched"
    """Given out, not ended."""
    SUCCEEDED = "Succeeded"
    """Ended with a verdict, converged or not."""
    FAILED = "Failed"
    """Ended without a verdict: nothing is known about its batch size."""


class Stage(StrEnum):
    """What a job is busy with."""

    PRUNING = "Pruning"
    MAB = "MAB"
    STUCK = "Stuck"
    """No batch size converged in a pruning round; a person must act."""


class VerdictCode(StrEnum):
    """What a report means, as one word for programs."""

    CONTINUE = "continue"
    CONVERGED = "converged"
    COST_BOUND = "cost_bound"
    MAX_EPOCHS = "max_epochs"
    DIVERGED = "diverged"
    OUT_OF_MEMORY = "out_of_memory"


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """What a job's decisions depend on, with the wire's ranges and defaults. Sizes ascend, `max_power` is in watts."""

    batch_sizes: tuple[int, ...]
    default_batch_size: int
    eta_knob: float
    beta_knob: float | None
    target_metric: float
    higher_is_better_metric: bool
    max_epochs: int
    num_pruning_rounds: int = 2
    window_size: int = 0
    mab_prior_mean: float = 0.0
    mab_prior_precision: float = 0.0
    mab_num_explorations: int = 2
    max_power: float
    policy: str = "zeus"


@dataclass(frozen=True, slots=True)
class Trial:
    """One run. Energy, time and epochs are those last reported.

    `started` and `ended` are the job's revisions at which that happened: a logical clock, so that the
    order of events does not hang on the time of day. `ended` is None while the trial runs.
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
    """How many times the usual bound the run may cost; None: it has none."""
    out_of_memory: bool = False
    """Whether it failed since its batch size did not fit in memory."""


@dataclass(frozen=True, slots=True)
class Probed:
    """What timing a few steps with a batch size told about an epoch. Where it does not fit in memory, nothing else."""

    batch_size: int
    fits: bool
    epoch_energy_j: float
    epoch_time_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """What is known from ended trials that a state leaves out, so that a long history need not be read anew.

    Every policy has its own, with what it looks at: `backend.core.results`, `backend.core.belief`.
    """

    last: Trial | None = None
    """The last of the trials to end; what ended before it is told."""

    @property
    def through(self) -> int:
        """The job's revision at which the last of the trials ended."""
        return 0 if self.last is None else self.last.ended or 0

    @property
    def unsettled(self) -> tuple[int, ...]:
        """Batch sizes of which lost trials count, too."""
        return ()


@dataclass(frozen=True, slots=True)
class JobState:
    """All that a decision may look at.

    `trials`: those of the job since its last reset, by rising number. `past`: of those that it leaves
    out, what its policy has `condensed`. `probed`: what a probe told of batch sizes since then, if there was one.
    """

    spec: Spec
    trials: tuple[Trial, ...]
    past: Past | None = None
    probed: tuple[Probed, ...] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """What one validation found; energy and time since the run's training began.

    `metric` None: it was NaN or infinite, or the run is out of memory.
    """

    metric: float | None
    energy_j: float
    time_s: float
    epoch: int
    out_of_memory: bool = False


@dataclass(frozen=True, slots=True)
class Choice:
    """The batch size that a run gets, and why."""

    batch_size: int
    type: TrialType
    reason: str
    bound_factor: float | None = 1.0
    """How many times the usual bound the run may cost; None: it has none."""


@dataclass(frozen=True, slots=True)
class Expectation:
    """What a policy expects a converging run with a batch size to cost; None: it cannot say yet."""

    batch_size: int
    expected_j: float | None
    sd_j: float | None
    """How sure that is; 0: no spread was seen."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a report means for its run, and why."""

    code: VerdictCode
    reason: str

    @property
    def stop(self) -> bool:
        """Whether the run ends."""
        return self.code is not VerdictCode.CONTINUE

    @property
    def converged(self) -> bool:
        """Whether the run ends because it reached the target."""
        return self.code is VerdictCode.CONVERGED
