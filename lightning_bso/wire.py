"""Every request, answer, path and limit of the protocol, in one place for both sides.

Pydantic models only: nothing here does I/O or decides anything. The protocol is the one that Zeus' own
batch-size-optimizer client speaks; what goes beyond it is optional for the caller (`docs/protocol.md`
lists it). Unknown fields are ignored, NaN and infinities are refused.

To add a field: add it here, then a column in `backend/models.py`, a migration, and a line in
`backend/store.py` or `backend/states.py`.
"""

import unicodedata
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    ValidationInfo,
    model_validator,
)
from pydantic_core import PydanticCustomError

JOBS_PATH = "/jobs"
BATCH_SIZE_PATH = "/jobs/batch_size"
REPORT_PATH = "/report"
TRIALS_PATH = "/trials"
AUDIT_PATH = "/audit"
HEARTBEAT_PATH = "/trials/heartbeat"
PROBE_PATH = "/trials/probe"
READY_PATH = "/readyz"
DOCUMENT_PATH = "/openapi.json"

MAX_BODY_BYTES = 64 * 1024
MAX_ID_LENGTH = 255
MAX_RUN_ID_LENGTH = 64
MAX_REASON_LENGTH = 500
MAX_BATCH_SIZES = 1024
MAX_GP_UCB_BATCH_SIZES = 64  # its work grows with their cube
MAX_INT = 2**31 - 1
MAX_SEED = 2**63 - 1
MAX_QUANTITY = 1e30  # J, s, W: beyond anything real, and its products and squares stay finite
SMALLEST_PRECISION = 1e-60  # 1/MAX_QUANTITY**2: a smaller one means nothing, and its inverse overflows
MAX_PAGE = 1000
_RESERVED_ENDS = ("/trials", "/belief", "/savings", "/reset")
GENERATED_ID_LENGTH = 9  # "-" and eight hexadecimal digits behind a job_id_prefix

Policy = Literal["gp-ucb", "zeus"]

EnergySource = Literal["nvml", "amd", "apple", "rapl", "estimated"]
"""Where an energy figure comes from: a counter of that kind, or an estimate from CPU time."""


def _json_number(value: Any, info: ValidationInfo) -> Any:
    """Refuse "1" and true for 1, which pydantic takes, but not 1.0, which JSON Schema calls an integer.

    A value that stands in no message is text from a command line, where all numbers are.
    """
    if isinstance(value, bool) or (isinstance(value, (str, bytes)) and info.field_name is not None):
        raise PydanticCustomError("number_type", "Input should be a number")
    return value


def _no_control_characters(value: str) -> str:
    if any(unicodedata.category(character) == "Cc" for character in value):
        raise PydanticCustomError("control_character", "Remove the control characters (tab, newline, NUL, …)")
    return value


Int = Annotated[int, BeforeValidator(_json_number)]
Number = Annotated[float, BeforeValidator(_json_number)]
Count = Annotated[Int, Field(ge=0, le=MAX_INT)]
PositiveCount = Annotated[Int, Field(gt=0, le=MAX_INT)]
Quantity = Annotated[Number, Field(ge=0, le=MAX_QUANTITY)]
PositiveQuantity = Annotated[Number, Field(gt=0, le=MAX_QUANTITY)]
Id = Annotated[str, Field(min_length=1, max_length=MAX_ID_LENGTH), AfterValidator(_no_control_characters)]
RunId = Annotated[str, Field(min_length=1, max_length=MAX_RUN_ID_LENGTH), AfterValidator(_no_control_characters)]


class Wire(BaseModel):
    """Base of all that is sent: immutable, finite, tolerant of fields it does not know."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False, use_attribute_docstrings=True)


class _JobFields(Wire):
    """What describes a job apart from the machine it runs on."""

    job_id: Id | None = None
    """Name of the job, starting with `job_id_prefix`. None: made from the prefix."""
    job_id_prefix: Id
    """What the names of this training's jobs start with."""
    batch_sizes: Annotated[list[PositiveCount], Field(min_length=1, max_length=MAX_BATCH_SIZES)]
    """Global batch sizes to choose from, each once; sorted on receipt."""
    default_batch_size: PositiveCount
    """The batch size used today, one of `batch_sizes`; explored first."""
    eta_knob: Annotated[Number, Field(ge=0, le=1)] = 0.5
    """Weight of energy against time in the cost: 1 saves energy alone, 0 time alone."""
    beta_knob: PositiveQuantity | None = 2.0
    """A run is stopped once its cost exceeds this many times the lowest known. None: never."""
    target_metric: Number = 0.5
    """Value of the validation metric at which the training has converged."""
    higher_is_better_metric: StrictBool = True
    """True: converged at or above the target (accuracy); False: at or below (loss)."""
    max_epochs: PositiveCount = 100
    """A run that has not reached the target after this many epochs has failed."""
    num_pruning_rounds: Count = 2
    """Rounds over all batch sizes before the bandit begins; 0: none."""
    window_size: Count = 0
    """How many of a batch size's latest results the bandit looks at; 0: all."""
    mab_prior_mean: Annotated[Number, Field(ge=-MAX_QUANTITY, le=MAX_QUANTITY)] = 0.0
    """Mean of the bandit's prior over the reward (minus the cost, in joules)."""
    mab_prior_precision: Quantity = 0.0
    """Precision (1/variance) of that prior; 0: no prior knowledge."""
    mab_num_explorations: Count = 2
    """How often the bandit tries each batch size before it samples."""
    mab_seed: Annotated[Int, Field(ge=0, le=MAX_SEED)] | None = None
    """Seed of the bandit: the same seed and reports give the same choices. None: one is drawn."""
    policy: Policy = "zeus"
    """How batch sizes are picked: `gp-ucb`, or `zeus`, the published policy."""
    warm_start_from: Id | None = None
    """Under `gp-ucb`: id of a job whose knowledge of the epochs to the target this one begins with."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        self.batch_sizes.sort()
        repeated = sorted({a for a, b in zip(self.batch_sizes, self.batch_sizes[1:], strict=False) if a == b})
        if repeated:
            raise PydanticCustomError(
                "repeated_batch_sizes",
                "batch_sizes names {repeated} more than once; list each batch size once",
                {"repeated": ", ".join(map(str, repeated))},
            )
        if self.default_batch_size not in self.batch_sizes:
            raise PydanticCustomError(
                "default_not_listed",
                "default_batch_size {default} is not among batch_sizes; add it there or choose one of them",
                {"default": self.default_batch_size},
            )
        if self.job_id is not None and not self.job_id.startswith(self.job_id_prefix):
            raise PydanticCustomError("job_id_prefix", "job_id must start with job_id_prefix; change one of the two")
        if self.job_id is not None and (self.job_id == "batch_size" or self.job_id.endswith(_RESERVED_ENDS)):
            raise PydanticCustomError(
                "reserved_job_id",
                "job_id must not be batch_size nor end in {ends}, which name something else in the server's addresses; "
                "change its end",
                {"ends": " or ".join(_RESERVED_ENDS)},
            )
        if 0 < self.mab_prior_precision < SMALLEST_PRECISION:
            raise PydanticCustomError(
                "prior_precision_too_small",
                "mab_prior_precision must be 0 or at least {limit}",
                {"limit": SMALLEST_PRECISION},
            )
        if self.policy == "gp-ucb" and len(self.batch_sizes) > MAX_GP_UCB_BATCH_SIZES:
            raise PydanticCustomError(
                "too_many_batch_sizes",
                "policy gp-ucb takes up to {limit} batch_sizes; leave some out, or choose policy zeus",
                {"limit": MAX_GP_UCB_BATCH_SIZES},
            )
        if self.warm_start_from is not None and self.policy != "gp-ucb":
            raise PydanticCustomError(
                "warm_start_policy", "warm_start_from needs policy gp-ucb; change the policy, or leave it out"
            )
        if self.job_id is None and len(self.job_id_prefix) > MAX_ID_LENGTH - GENERATED_ID_LENGTH:
            raise PydanticCustomError(
                "prefix_too_long",
                "job_id_prefix leaves no room for a generated job_id; shorten it to {limit} characters",
                {"limit": MAX_ID_LENGTH - GENERATED_ID_LENGTH},
            )
        return self


class JobSpec(_JobFields):
    """A training that recurs, as its user describes it (Zeus calls it JobParams, too).

    The fields of the machine are read from the energy meter unless given. The policy is the better one, while a spec
    sent by a program that knows of none means the published one.
    """

    policy: Policy = "gp-ucb"
    """How batch sizes are picked: `gp-ucb`, or `zeus`, the published policy."""

    max_power: PositiveQuantity | None = None
    """Maximum power draw in watts, summed over the GPUs used. None: read from the GPUs."""
    number_of_gpus: PositiveCount | None = None
    """GPUs used by one run. None: those the meter watches."""
    gpu_model: Id | None = None
    """Model name of these GPUs. None: read from them."""


class RegisteredJobSpec(_JobFields):
    """A job with the machine that it runs on: the body of `POST /jobs`, and its answer."""

    max_power: PositiveQuantity
    """Maximum power draw in watts, summed over the GPUs used."""
    number_of_gpus: PositiveCount
    """GPUs used by one run."""
    gpu_model: Id
    """Model name of these GPUs."""


class JobQuery(Wire):
    """Names a job in a URL's query."""

    job_id: Id


class AskRequest(Wire):
    """Ask for the batch size of one run. The same `run_id` always gets the same trial."""

    job_id: Id
    run_id: RunId
    """The caller's name for its run; makes the ask repeatable."""
    resumes: StrictBool = True
    """False: the run begins anew, and does not go on with a trial that was left at its end; how that ended is told."""
    host: Id | None = None
    """The machine that the run is on, for the people who look at it."""


class AskAnswer(Wire):
    """The batch size to train with, and for a run that goes on what it last reported."""

    job_id: str
    batch_size: int
    trial_number: int
    type: str = ""
    """`Pruning`, `MAB`, `Concurrent` or `Paused`."""
    reason: str = ""
    """Why this batch size."""
    status: str = "Dispatched"
    """`Dispatched` while the run goes on, `Succeeded` with a verdict, `Failed` without one."""
    outcome: str | None = None
    """Why the run has ended for good; None: it goes on, or was only taken for lost."""
    lease_s: float | None = None
    """Seconds of silence after which the server takes the run for lost."""
    time: float = 0.0
    energy: float = 0.0
    current_epoch: int = 0
    report_number: int = 0
    """Number of the last report, 0 before the first."""
    probe_wanted: bool = False
    """Whether the job would gain by a probe of its batch sizes, and no run has made one or told that there is none."""


class ReportRequest(Wire):
    """What one validation found. Time and energy count from the beginning of the run's training."""

    job_id: Id
    batch_size: PositiveCount
    trial_number: PositiveCount
    time: Quantity
    """Seconds of training so far."""
    energy: Quantity
    """Joules of training so far."""
    metric: Number | None
    """The validation metric; null: it was NaN or infinite, the run has diverged."""
    current_epoch: Count
    """Epochs completed."""
    report_number: PositiveCount | None = None
    """1, 2, 3 …: makes the report repeatable."""
    energy_source: EnergySource | None = None
    accumulate_grad_batches: PositiveCount = 1
    """Parts that each device takes its share of a batch in; 1: it takes the whole at a time."""
    out_of_memory: StrictBool = False
    """The run has ended since its batch size does not fit in memory; `metric` is null."""

    @model_validator(mode="after")
    def _has_no_metric_without_memory(self) -> Self:
        if self.out_of_memory and self.metric is not None:
            raise PydanticCustomError("out_of_memory", "out_of_memory ends a run without a metric; let metric be null")
        return self


class ReportAnswer(Wire):
    """The server's verdict on a report."""

    stop_train: bool
    converged: bool
    message: str
    reason: str = ""
    """One of `continue`, `converged`, `cost_bound`, `max_epochs`, `diverged`, `out_of_memory`, `ended`, `left`,
    `stopped`."""
    cost: float | None = None
    """Cost of the run so far, in joules."""


class TrialRequest(Wire):
    """Ends a trial that will not report again; it leaves no result."""

    job_id: Id
    batch_size: PositiveCount
    trial_number: PositiveCount
    reason: Annotated[str, Field(max_length=MAX_REASON_LENGTH)] | None = None
    """Why the run ended, for the people who look at it."""
    over: StrictBool = False
    """Nothing broke the run: it came to its end, though not to a verdict."""
    report_number: Count | None = None
    """Number of the last report that the caller knows of. If there is a later one the run goes on elsewhere, and the
    trial is left as it is."""


class HeartbeatRequest(Wire):
    """Renews a trial's lease between reports that are far apart."""

    job_id: Id
    trial_number: PositiveCount


class HeartbeatAnswer(Wire):
    """Whether the server still counts on the trial, and for how long without word of it."""

    status: str
    lease_s: float


class ProbedSize(Wire):
    """What timing a few steps with a batch size told, and what that took."""

    batch_size: PositiveCount
    fits: StrictBool
    """False: it does not fit in memory, and the epoch's figures are 0."""
    epoch_time: Quantity = 0.0
    """Seconds that an epoch would take, its validation included."""
    epoch_energy: Quantity = 0.0
    """Joules that an epoch would take."""
    time: Quantity
    """Seconds that finding this out took."""
    energy: Quantity
    """Joules that it took."""

    @model_validator(mode="after")
    def _tells_of_an_epoch(self) -> Self:
        if self.fits and self.epoch_time == 0:
            raise PydanticCustomError("epoch_time", "epoch_time must be above 0 where the batch size fits")
        if not self.fits and (self.epoch_time or self.epoch_energy):
            raise PydanticCustomError("fits", "epoch_time and epoch_energy must be 0 where it does not fit in memory")
        return self


class ProbeRequest(Wire):
    """What a run has found out about batch sizes of its job by timing a few steps of each."""

    job_id: Id
    trial_number: PositiveCount
    sizes: Annotated[list[ProbedSize], Field(max_length=MAX_GP_UCB_BATCH_SIZES)]
    """None: there can be no probe, and no other run is to try."""


class BatchSizeSummary(Wire):
    """What a job knows about one of its batch sizes."""

    batch_size: int
    runs: int
    """Runs that ended with a verdict."""
    converged: int
    """Those that reached the target."""
    lost: int
    """Runs that ended without a verdict: crashed, killed, never heard of again."""
    mean_cost: float | None = None
    """Mean cost of the converged runs, in joules; None before the first."""
    mean_energy: float | None = None
    mean_time: float | None = None
    mean_epochs: float | None = None
    ruled_out: str | None = None
    """Why it is not given any more; None: it still is, or will be."""


class JobSummary(Wire):
    """A job as it stands."""

    spec: RegisteredJobSpec
    paused: bool = False
    """Whether every run gets the default batch size, as a person wants it."""
    stage: str
    """`Pruning`, `MAB`, or `Stuck` when no batch size converged."""
    message: str
    """The stage in words, and what to do when it is `Stuck`."""
    created_at: datetime
    trials: int
    running: int
    best_batch_size: int | None = None
    """The batch size with the lowest mean cost of converged runs."""
    batch_sizes: list[BatchSizeSummary]


class TrialRecord(Wire):
    """One trial as it is stored."""

    trial_number: int
    run_id: str | None = None
    exploration: int
    """How many resets came before it; only the trials since the last one count in decisions."""
    batch_size: int
    type: str
    status: str
    reason: str
    """Why this batch size was given."""
    outcome_code: str | None = None
    """Why the trial ended, as one word: that of its last verdict, `ended` (by its caller), `left` (at its end, without
    a verdict), `stopped` (by a person) or `lost`. None while it runs."""
    outcome: str | None = None
    """The same in words."""
    converged: bool | None = None
    """None until there is a verdict."""
    energy: float
    time: float
    current_epoch: int
    cost: float
    energy_source: EnergySource | None = None
    accumulate_grad_batches: int = 1
    """Parts that each device took its share of a batch in."""
    host: str | None = None
    """The machine that the run is on, as far as it said."""
    started_at: datetime
    last_seen_at: datetime
    ended_at: datetime | None = None


class PageQuery(Wire):
    """A part of a long list. In a URL every value is text, so numbers are read from it."""

    offset: Annotated[int, Field(ge=0, le=MAX_INT)] = 0
    limit: Annotated[int, Field(ge=1, le=MAX_PAGE)] = 100


class TrialPage(Wire):
    """Trials `offset` … of all `total` of a job, by rising number."""

    total: int
    trials: list[TrialRecord]


class JobsQuery(PageQuery):
    """A part of the jobs; what is not given does not matter."""

    contains: Annotated[str, Field(max_length=MAX_ID_LENGTH)] | None = None
    """What the ids hold anywhere."""
    policy: Policy | None = None
    gpu_model: Id | None = None
    paused: bool | None = None


class JobListing(Wire):
    """One line of the list of jobs."""

    job_id: str
    gpu_model: str
    policy: str
    created_at: datetime
    trials: int
    running: int
    paused: bool = False
    best_batch_size: int | None = None
    """The batch size with the lowest mean cost of converged runs."""
    last_seen_at: datetime | None = None
    """When a run of it was last heard of."""


class JobPage(Wire):
    """Jobs `offset` … of all `total`, newest first."""

    total: int
    jobs: list[JobListing]


class SizeBelief(Wire):
    """What a policy expects of a batch size."""

    batch_size: int
    expected_cost: float | None = None
    """Of a converging run, in joules; None: it cannot say yet."""
    standard_deviation: float | None = None
    """How sure that is, in joules."""
    runs: int
    """That ended with a verdict."""
    ruled_out: str | None = None
    """Why it is not given any more."""


class JobBelief(Wire):
    """What a job's policy believes, and what it would do next."""

    job_id: str
    policy: str
    batch_sizes: list[SizeBelief]
    next_batch_size: int | None = None
    """What a run that asks now would get; None: nothing is left to give."""
    next_reason: str
    """Why; or what to do when there is none."""
    cost_bound: float | None = None
    """Joules beyond which a run that is given out now is stopped; None: never."""


class Usage(Wire):
    """Energy in joules, time in seconds, and the cost in joules that they come to."""

    energy: float
    time: float
    cost: float


class JobSavings(Wire):
    """What a job has spent and saved since it was registered. A recurrence is a run that converged."""

    job_id: str
    launches: int
    """Runs that have ended."""
    recurrences: int
    """Those that converged."""
    spent: Usage
    """By all that have ended, failed ones too."""
    default_batch_size: int
    against_default: Usage | None = None
    """Saved, had every recurrence cost the mean of the default's converged runs; None: none has converged."""
    best_batch_size: int | None = None
    against_best: Usage | None = None
    """The same with the best batch size, as nobody knew beforehand; negative: what finding it has cost."""


class AuditQuery(PageQuery):
    """A part of the audit log."""

    job_id: Id | None = None
    """Only what was done to this job."""


class AuditRecord(Wire):
    """Something that somebody did."""

    at: datetime
    actor: str
    """`token LABEL`, `user NAME`, `own machine` or `command line`."""
    address: str
    action: str
    job_id: str | None = None
    detail: str


class AuditPage(Wire):
    """Entries `offset` … of all `total`, newest first."""

    total: int
    entries: list[AuditRecord]


class About(Wire):
    """Whose calls the document is of."""

    title: Literal["lightning-bso"]
    version: str


class Document(Wire):
    """What the description of all calls (OpenAPI) says of the server that answers them."""

    info: About


class Fault(Wire):
    """One thing wrong with a request."""

    loc: list[str | int]
    """Path of the field."""
    msg: str
    type: str


class ErrorAnswer(Wire):
    """The body of every error."""

    message: str
    detail: list[Fault] | None = None
    """With status 422: every fault."""


JobParams = JobSpec
"""The name that Zeus' documentation uses."""
