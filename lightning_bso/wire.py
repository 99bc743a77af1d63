"""Every request, answer, path and limit of the protocol, for the client and the server.

Only pydantic models live here, without I/O and without decisions. The protocol is that of Zeus' own
batch-size-optimizer client. Every extension is optional for the caller; `docs/protocol.md` lists them.
The models ignore unknown fields and refuse NaN and infinities.

To add a field, add it here, then add a column in `backend/database/models.py`, a migration, and a line in
`backend/database/store.py` or `backend/database/states.py`.
"""

import re
from datetime import date, datetime
from functools import cache
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError
from typing_extensions import override

JOBS_PATH = "/jobs"
BATCH_SIZE_PATH = "/jobs/batch_size"
REPORT_PATH = "/report"
TRIALS_PATH = "/trials"
AUDIT_PATH = "/audit"
SAVINGS_PATH = "/savings"
HEARTBEAT_PATH = "/trials/heartbeat"
PROBE_PATH = "/trials/probe"
AFTER_PATH = "/trials/after"
READY_PATH = "/readyz"
EXPORTED_TRIALS_PATH = "/export/trials"
EXPORTED_REPORTS_PATH = "/export/reports"
DOCUMENT_PATH = "/openapi.json"

MAX_BODY_BYTES = 64 * 1024
MAX_ID_LENGTH = 255
MAX_RUN_ID_LENGTH = 64
MAX_REASON_LENGTH = 500
MAX_BATCH_SIZES = 1024
MAX_GP_UCB_BATCH_SIZES = 64  # the work grows with the cube of their number
MAX_CALIBRATION_RUNS = 100
MAX_INT = 2**31 - 1
MAX_SEED = 2**63 - 1
MAX_QUANTITY = 1e30  # J, s, W: larger than any real value; its products and squares stay finite
MAX_STILL_S = 1.0  # a device draws power even when idle, so its counter, updated every 0.1 s or so, moves in this time
SMALLEST_PRECISION = 1e-60  # 1/MAX_QUANTITY**2: a smaller precision has no meaning, and its inverse overflows
MAX_PAGE = 1000
MAX_EXPORTED_JOBS = 100
_RESERVED_ENDS = ("/trials", "/belief", "/savings", "/reset")
GENERATED_ID_LENGTH = 9  # "-" and eight hexadecimal digits after a job_id_prefix

Policy = Literal["gp-ucb", "zeus"]

EnergySource = Literal["nvml", "amd", "apple", "rapl", "estimated"]
"""The source of an energy figure: an energy counter of this type, or an estimate from CPU time."""


_CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def _json_number(value: Any, info: ValidationInfo) -> Any:
    """Refuse "1" and true for 1, which pydantic would accept. Accept 1.0, which JSON Schema calls an integer.

    A value outside of a message (without a field name) comes from a command line, where every number is text.
    """
    if isinstance(value, bool) or (isinstance(value, (str, bytes)) and info.field_name is not None):
        raise PydanticCustomError("number_type", "Input should be a number")
    return value


def _no_control_characters(value: str) -> str:
    if _CONTROL_CHARACTER.search(value):
        raise PydanticCustomError("control_character", "Remove the control characters (tab, newline, NUL, …)")
    return value


def _iso_day(value: Any) -> Any:
    """Refuse the seconds since 1970, which pydantic would accept as a day."""
    if isinstance(value, str) and not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value):
        raise PydanticCustomError("day", "Input should be a day, such as 2026-01-31")
    return value


# A limit stands before the validator, else the JSON schema does not have it.
_JSON_NUMBER = BeforeValidator(_json_number)
Number = Annotated[float, _JSON_NUMBER]
Share = Annotated[float, Field(ge=0, le=1), _JSON_NUMBER]
Count = Annotated[int, Field(ge=0, le=MAX_INT), _JSON_NUMBER]
PositiveCount = Annotated[int, Field(gt=0, le=MAX_INT), _JSON_NUMBER]
Quantity = Annotated[float, Field(ge=0, le=MAX_QUANTITY), _JSON_NUMBER]
PositiveQuantity = Annotated[float, Field(gt=0, le=MAX_QUANTITY), _JSON_NUMBER]
Day = Annotated[date, BeforeValidator(_iso_day)]
_PRINTABLE: Any = {"pattern": r"^[^\x00-\x1f\x7f-\x9f]*$"}
Id = Annotated[
    str,
    Field(min_length=1, max_length=MAX_ID_LENGTH, json_schema_extra=_PRINTABLE),
    AfterValidator(_no_control_characters),
]
RunId = Annotated[
    str,
    Field(min_length=1, max_length=MAX_RUN_ID_LENGTH, json_schema_extra=_PRINTABLE),
    AfterValidator(_no_control_characters),
]


class Wire(BaseModel):
    """Base class of all messages: immutable, finite numbers only, and unknown fields are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False, use_attribute_docstrings=True)


class _JobFields(Wire):
    """The fields that describe a job, without those of the machine that it runs on."""

    job_id: Id | None = None
    """Name of the job, which starts with `job_id_prefix`. None: generated from the prefix."""
    job_id_prefix: Id
    """Common beginning of the names of this training's jobs."""
    batch_sizes: Annotated[
        list[PositiveCount],
        Field(min_length=1, max_length=MAX_BATCH_SIZES, json_schema_extra={"uniqueItems": True}),
    ]
    """Global batch sizes to choose from, without repetition. They are sorted on receipt."""
    default_batch_size: PositiveCount
    """The batch size used today, one of `batch_sizes`. It is tried first."""
    eta_knob: Share = 0.5
    """Weight of energy against time in the cost. 1: only energy counts; 0: only time counts."""
    beta_knob: PositiveQuantity | None = 2.0
    """A run is stopped when its cost exceeds the lowest known cost times this factor. None: never."""
    target_metric: Number | Literal["auto"] | None = 0.5
    """Value of the validation metric at which the training has converged. "auto" or None: the job learns it from its
    first runs, which take the default batch size and end by their own rules."""
    higher_is_better_metric: StrictBool = True
    """True: converged at or above the target (accuracy). False: converged at or below the target (loss)."""
    calibration_runs: Annotated[int, Field(ge=1, le=MAX_CALIBRATION_RUNS), _JSON_NUMBER] = 3
    """Number of runs from which a target is learnt. It is the weakest of their best metrics."""
    target_tolerance: Share = 0.0
    """How far a learnt target is relaxed: a share of the way from the run's first metric to its best."""
    max_epochs: PositiveCount = 100
    """A run fails if it has not reached the target after this many epochs."""
    num_pruning_rounds: Count = 2
    """Rounds over all batch sizes before the bandit starts. 0: none."""
    window_size: Count = 0
    """Number of the latest results of a batch size that the bandit uses. 0: all."""
    mab_prior_mean: Annotated[float, Field(ge=-MAX_QUANTITY, le=MAX_QUANTITY), _JSON_NUMBER] = 0.0
    """Mean of the bandit's prior over the reward (minus the cost, in joules)."""
    mab_prior_precision: Quantity = 0.0
    """Precision (1/variance) of the bandit's prior. 0: no prior knowledge."""
    mab_num_explorations: Count = 2
    """Number of times that the bandit tries each batch size before it samples."""
    mab_seed: Annotated[int, Field(ge=0, le=MAX_SEED), _JSON_NUMBER] | None = None
    """Seed of the bandit: the same seed and reports give the same choices. None: the server draws a seed."""
    policy: Policy = "zeus"
    """The policy that chooses batch sizes: `gp-ucb`, or `zeus`, the published policy."""
    warm_start_from: Id | None = None
    """With `gp-ucb`: id of another job. This job starts with that job's knowledge of the epochs to the target."""

    @field_validator("target_metric", mode="before")
    @classmethod
    def _read_auto(cls, value: Any) -> Any:
        return None if value == "auto" else value

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
                "job_id must not be batch_size and must not end in {ends}, because other URLs of the server use these; "
                "change the job_id",
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
                "policy gp-ucb accepts at most {limit} batch_sizes; remove some, or choose policy zeus",
                {"limit": MAX_GP_UCB_BATCH_SIZES},
            )
        if self.warm_start_from is not None and self.policy != "gp-ucb":
            raise PydanticCustomError(
                "warm_start_policy",
                "warm_start_from requires policy gp-ucb; change the policy, or remove warm_start_from",
            )
        if self.warm_start_from is not None and self.target_metric is None:
            raise PydanticCustomError(
                "warm_start_target",
                "warm_start_from requires a target_metric, because only runs to one target compare; give both jobs the "
                "same target, or remove warm_start_from",
            )
        if self.job_id is None and len(self.job_id_prefix) > MAX_ID_LENGTH - GENERATED_ID_LENGTH:
            raise PydanticCustomError(
                "prefix_too_long",
                "job_id_prefix is too long for a generated job_id; shorten the prefix to {limit} characters",
                {"limit": MAX_ID_LENGTH - GENERATED_ID_LENGTH},
            )
        return self


class JobSpec(_JobFields):
    """A training that recurs, as its user describes it. Zeus also calls this JobParams.

    The energy meter gives the machine's fields that the user leaves out. The default policy is `gp-ucb`. In a
    `RegisteredJobSpec` it is `zeus`, because a program that sends no policy does not know the field.
    """

    policy: Policy = "gp-ucb"
    """The policy that chooses batch sizes: `gp-ucb`, or `zeus`, the published policy."""

    max_power: PositiveQuantity | None = None
    """Maximum power draw in watts, summed over the GPUs of a run. None: read from the GPUs."""
    number_of_gpus: PositiveCount | None = None
    """Number of GPUs of one run. None: those that the meter watches."""
    gpu_model: Id | None = None
    """Model name of these GPUs. None: read from the GPUs."""


class RegisteredJobSpec(_JobFields):
    """A job and the machine that it runs on. This is the body of `POST /jobs` and of its answer."""

    target_metric: Number | None = 0.5
    """Value of the validation metric at which the training has converged. null: the job learns it from its first runs,
    which take the default batch size and end by their own rules."""

    max_power: PositiveQuantity
    """Maximum power draw in watts, summed over the GPUs of a run."""
    number_of_gpus: PositiveCount
    """Number of GPUs of one run."""
    gpu_model: Id
    """Model name of these GPUs."""


class _Query(Wire):
    """Base class of the parameters of a URL."""

    @classmethod
    @override
    def model_json_schema(cls, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return the JSON schema. The server's framework asks for it at each call, so the usual one is made once."""
        return super().model_json_schema(*args, **kwargs) if args or kwargs else _schema_of(cls)


@cache
def _schema_of(query: type[_Query]) -> dict[str, Any]:
    return super(_Query, query).model_json_schema()


class JobQuery(_Query):
    """Query parameters of a URL that name a job."""

    job_id: Id


class AskRequest(Wire):
    """Ask for the batch size of one run. The same `run_id` always gets the same trial."""

    job_id: Id
    run_id: RunId
    """The caller's name for its run. Repeating the ask under this name is safe."""
    resumes: StrictBool = True
    """False: the run does not resume a trial whose fit ended without a verdict. The answer has that trial's outcome."""
    host: Id | None = None
    """Name of the machine that runs the training, shown to users."""
    process: Id | None = None
    """Name of the process that asks, which no other process has. None: the caller gets the run's trial even if another
    process holds it."""
    takes_over: Id | None = None
    """Name of the process from which this one takes the trial over, because that one has ended."""
    stops: StrictBool = True
    """False: the training goes on after its verdict, so none comes after its first epoch alone."""


class AskAnswer(Wire):
    """The batch size to train with. For a run that resumes, also its last reported totals."""

    job_id: str
    batch_size: int
    trial_number: int
    type: str = ""
    """`Calibration`, `Pruning`, `MAB`, `Concurrent` or `Paused`."""
    reason: str = ""
    """Why this batch size was chosen."""
    status: str = "Dispatched"
    """`Dispatched` while the run is open, `Succeeded` if it ended with a verdict, `Failed` if it ended without one,
    `Calibrated` if its verdict follows when the job has learnt its target."""
    outcome: str | None = None
    """Why the run has ended finally. None: the run is open, or only its lease has expired."""
    lease_s: float | None = None
    """Seconds without a call after which the lease expires and the run counts as lost."""
    time: float = 0.0
    energy: float = 0.0
    current_epoch: int = 0
    report_number: int = 0
    """Number of the last report, 0 before the first."""
    converged: bool | None = None
    """Whether the run reached the target. None before the verdict."""
    energy_after: float = 0.0
    """Joules that the run has used after its verdict."""
    time_after: float = 0.0
    """Seconds that the run has trained after its verdict."""
    probe_wanted: bool = False
    """Whether a probe would help the job. False once a run has reported a probe, or that none is possible."""
    max_device_batch_size: int | None = None
    """The largest batch that the job's runs take on a device at a time, because more ran out of memory. None: no run
    has said so since the last reset."""
    held_by: str | None = None
    """Name of another process, which was the last to ask for this trial or to report on it. The ask then has changed
    nothing, and the trial is not the caller's. None: the trial is the caller's."""


class TrialCall(Wire):
    """A call of a run about its trial."""

    job_id: Id
    trial_number: PositiveCount
    run_id: RunId | None = None
    """The name under which the run asked for its trial. If the trial is of another run, the call changes nothing: since
    the ask, the job has been deleted and registered again. None: the call counts for whatever run has the trial."""


class ReportRequest(TrialCall):
    """The result of one validation. Time and energy count from the start of the run's training."""

    batch_size: PositiveCount
    time: Quantity
    """Seconds of training so far."""
    energy: Quantity
    """Joules of training so far. An energy counter that shows 0 J for more than 1 s has measured nothing."""
    metric: Number | None
    """The validation metric. null: the metric was NaN or infinite, so the run has diverged."""
    current_epoch: Count
    """Epochs completed."""
    report_number: PositiveCount | None = None
    """1, 2, 3 and so on. Repeating a report with its number is safe."""
    energy_source: EnergySource | None = None
    accumulate_grad_batches: PositiveCount = 1
    """Number of parts in which each device processes its share of a batch. 1: the whole share at once."""
    out_of_memory: StrictBool = False
    """True: the run ended because its batch size does not fit in memory. `metric` is then null."""
    process: Id | None = None
    """Name of the process that reports."""

    @model_validator(mode="after")
    def _has_no_metric_without_memory(self) -> Self:
        if self.out_of_memory and self.metric is not None:
            raise PydanticCustomError("out_of_memory", "out_of_memory ends a run without a metric; set metric to null")
        return self


class ReportAnswer(Wire):
    """The server's verdict on a report."""

    stop_train: bool
    converged: bool
    message: str
    reason: str = ""
    """One of `continue`, `converged`, `cost_bound`, `max_epochs`, `diverged`, `out_of_memory`, `priced_out`,
    `calibrated`, `training_over`, `ended`, `left`, `stopped`. After `calibrated`, the run counts as converged as soon
    as the job has learnt its target."""
    cost: float | None = None
    """Cost of the run so far, in joules."""


class TrialRequest(TrialCall):
    """Ends a trial that will not report again. The trial gets no result.

    A batch size other than the default is ruled out if its runs break in the same way twice before their first epoch,
    while another batch size works.
    """

    batch_size: PositiveCount
    reason: Annotated[str, Field(max_length=MAX_REASON_LENGTH)] | None = None
    """Why the run ended, shown to users."""
    over: StrictBool = False
    """True: the run came to its regular end without a verdict. False: the run broke, by the error in `reason`."""
    unfit: StrictBool = False
    """True: the job cannot be trained with this batch size, because every run would end like this. The batch size is
    ruled out at once, and so are those beyond it that no run has trained with. This has no effect for the default, or
    for a batch size that a run has converged with."""
    misconfigured: StrictBool = False
    """True: the program's set-up is wrong, so the end says nothing about the batch size."""
    current_epoch: Count = 0
    """Epochs completed, reported or not."""
    report_number: Count | None = None
    """Number of the last report that the caller knows. If the server has a later report, the run has resumed in another
    process, and the trial does not end."""
    max_device_batch_size: PositiveCount | None = None
    """The run ended because a larger batch than this does not fit on a device at a time. The job's next runs take no
    larger one, so the end is no breakdown of the batch size."""
    process: Id | None = None
    """Name of the process that ends the trial. If another process was the last to ask for the trial or to report on it,
    the trial does not end."""


class EndAnswer(Wire):
    """The consequence of an end for the trial's batch size. An answer of `null` stands for no consequence."""

    ruled_out: str | None = None
    """Why errors have ruled the batch size out until the job is reset. None: they have not."""
    verdict: ReportAnswer | None = None
    """The verdict on a run whose training is over, in a job that learns its target: it calibrates the target, or has
    failed below it. None: the run has no verdict."""

    @model_validator(mode="before")
    @classmethod
    def _read_null(cls, value: Any) -> Any:
        return {} if value is None else value


class HeartbeatRequest(TrialCall):
    """Renews a trial's lease between reports that are far apart."""

    max_device_batch_size: PositiveCount | None = None
    """The run takes no larger batch on a device at a time from now on, because more ran out of memory. The job's next
    runs take no larger one either. None: nothing has changed."""


class HeartbeatAnswer(Wire):
    """The status of the trial, and its lease."""

    status: str
    lease_s: float


class AfterRequest(TrialCall):
    """What a run has used since its verdict, because its training goes on. This is no part of the run's cost."""

    time: Quantity
    """Seconds of training since the report that brought the verdict."""
    energy: Quantity
    """Joules of training since that report."""
    metric: Number | None = None
    """The best validation metric of the run so far. null: it has reported no number."""


class ProbedSize(Wire):
    """The result of timing a few steps with a batch size, and the cost of the timing."""

    batch_size: PositiveCount
    fits: StrictBool
    """False: the batch size does not fit in memory, and the figures of the epoch are 0."""
    epoch_time: Quantity = 0.0
    """Seconds that an epoch would take, including its validation."""
    epoch_energy: Quantity = 0.0
    """Joules that an epoch would use."""
    time: Quantity
    """Seconds that the timing took."""
    energy: Quantity
    """Joules that the timing used."""

    @model_validator(mode="after")
    def _tells_of_an_epoch(self) -> Self:
        if self.fits and self.epoch_time == 0:
            raise PydanticCustomError("epoch_time", "epoch_time must be above 0 if the batch size fits in memory")
        if not self.fits and (self.epoch_time or self.epoch_energy):
            raise PydanticCustomError(
                "fits", "epoch_time and epoch_energy must be 0 if the batch size does not fit in memory"
            )
        return self


class ProbeRequest(TrialCall):
    """A probe: the results of timing a few steps with several batch sizes of a job."""

    sizes: Annotated[list[ProbedSize], Field(max_length=MAX_GP_UCB_BATCH_SIZES)]
    """Empty: a probe is impossible, and no other run should try."""


class BatchSizeSummary(Wire):
    """The results of a job with one of its batch sizes."""

    batch_size: int
    runs: int
    """Runs that converged or failed."""
    converged: int
    """Runs that reached the target."""
    priced_out: int = 0
    """First runs that ended after an epoch, because it showed that they were not worth their cost."""
    lost: int
    """Runs that ended without a verdict: crashed, killed, or their lease expired."""
    mean_cost: float | None = None
    """Mean cost of the converged runs, in joules. None: no run has converged."""
    mean_energy: float | None = None
    mean_time: float | None = None
    mean_epochs: float | None = None
    mean_best_metric: float | None = None
    """Mean of the best metrics of the converged runs, those after the verdict included."""
    ruled_out: str | None = None
    """Why the batch size is ruled out. None: the policy may still choose it."""


class LearntTarget(Wire):
    """The target that a job has learnt."""

    target_metric: float
    trials: list[int]
    """Numbers of the trials that it was learnt from."""


class JobSummary(Wire):
    """The current state of a job."""

    spec: RegisteredJobSpec
    learnt_target: LearntTarget | None = None
    """The target that the job has learnt since its last reset. None: the spec has a target, or none is learnt yet."""
    paused: bool = False
    """Whether a user has paused the job. Every run of a paused job gets the default batch size."""
    stage: str
    """`Calibration` while the job learns its target, `Pruning`, `MAB`, or `Stuck` if no batch size converged."""
    message: str
    """The stage in words, with advice if the stage is `Stuck`."""
    attention: str | None = None
    """Why the job's last runs need attention: three or more in a row have failed, or ended without a verdict."""
    created_at: datetime
    trials: int
    running: int
    best_batch_size: int | None = None
    """The batch size whose converged runs have the lowest mean cost."""
    recommended_batch_size: int | None = None
    """The batch size that the policy believes to cost least, of those that have converged. None: it names none."""
    best: str | None = None
    """`recommended_batch_size`, and `best_batch_size` if it is another one, in words. None: the server is older."""
    max_device_batch_size: int | None = None
    """The largest batch that the job's runs take on a device at a time, because more ran out of memory. None: no run
    has said so since the last reset."""
    batch_sizes: list[BatchSizeSummary]


class TrialRecord(Wire):
    """One trial as the server has stored it."""

    trial_number: int
    run_id: str | None = None
    exploration: int
    """Number of resets before the trial. Decisions use only the trials since the last reset."""
    batch_size: int
    type: str
    status: str
    reason: str
    """Why this batch size was chosen."""
    outcome_code: str | None = None
    """Why the trial ended, as a code: the `reason` of its last `ReportAnswer`, `ended` (by the caller), `left` (the fit
    ended without a verdict), `stopped` (by a user) or `lost` (the lease expired). None while the trial runs."""
    outcome: str | None = None
    """Why the trial ended, in words."""
    run_status: str | None = None
    """How the run stands, in one word: `running`, `converged`, `failed` (`outcome_code` is the reason), `priced_out`,
    `crashed` (by an error), `lost` (the lease expired), `ended` (by a user or by the end of the training, without a
    verdict) or `measured` (the target is to be learnt from it). None: the server is of an earlier release."""
    converged: bool | None = None
    """None before the verdict, and for a run that was priced out."""
    energy: float
    time: float
    current_epoch: int
    cost: float
    best_metric: float | None = None
    """The best validation metric of the run, those after the verdict included. None: it has reported no number."""
    energy_after: float = 0.0
    """Joules of training after the verdict. They are no part of the cost."""
    time_after: float = 0.0
    """Seconds of training after the verdict."""
    energy_source: EnergySource | None = None
    accumulate_grad_batches: int = 1
    """Number of parts in which each device processed its share of a batch."""
    host: str | None = None
    """Name of the machine that runs the training, if the run sent it."""
    started_at: datetime
    last_seen_at: datetime
    ended_at: datetime | None = None


class PageQuery(_Query):
    """Query parameters for a part of a long list. In a URL every value is text, so text is parsed as a number."""

    offset: Annotated[int, Field(ge=0, le=MAX_INT)] = 0
    limit: Annotated[int, Field(ge=1, le=MAX_PAGE)] = 100


class ExportQuery(_Query):
    """Query parameters for a file of all trials or all reports."""

    format: Literal["csv", "parquet"] = "csv"
    """Format of the file. In a CSV, a text that a spreadsheet would run as a formula has a quote in front."""
    job_id: Annotated[list[Id], Field(max_length=MAX_EXPORTED_JOBS)] = []
    """Only these jobs. None is named: all jobs."""


class TrialPage(Wire):
    """A part of a job's trials, starting at `offset`, by rising number. `total` counts all trials."""

    total: int
    trials: list[TrialRecord]


class JobsQuery(PageQuery):
    """Query parameters for a part of the jobs. A filter that is not given is not applied."""

    contains: Annotated[str, Field(max_length=MAX_ID_LENGTH)] | None = None
    """Text that the job ids contain."""
    policy: Policy | None = None
    gpu_model: Id | None = None
    paused: bool | None = None


class JobListing(Wire):
    """One job in the list of jobs."""

    job_id: str
    gpu_model: str
    policy: str
    created_at: datetime
    trials: int
    running: int
    paused: bool = False
    default_batch_size: int | None = None
    """None: the server is older."""
    recommended_batch_size: int | None = None
    """The batch size that the policy believes to cost least, of those that have converged. None: it names none, or the
    server is older."""
    best_batch_size: int | None = None
    """The batch size whose converged runs have the lowest mean cost."""
    last_launch_at: datetime | None = None
    """Time of the start of the job's last run. None: it has none, or the server is older."""
    last_seen_at: datetime | None = None
    """Time of the last call of one of the job's runs."""


class JobPage(Wire):
    """A part of the jobs, starting at `offset`, newest first. `total` counts all jobs."""

    total: int
    jobs: list[JobListing]


class SizeBelief(Wire):
    """The cost that a policy expects of a batch size."""

    batch_size: int
    expected_cost: float | None = None
    """Expected cost of a run that converges, in joules. None: the policy has no estimate yet."""
    standard_deviation: float | None = None
    """Standard deviation of the estimate, in joules."""
    runs: int
    """Runs with this batch size that ended with a verdict."""
    ruled_out: str | None = None
    """Why the batch size is ruled out. None: the policy may still choose it."""


class JobBelief(Wire):
    """The cost that a job's policy expects of each batch size, and the policy's next choice."""

    job_id: str
    policy: str
    batch_sizes: list[SizeBelief]
    next_batch_size: int | None = None
    """The batch size that a run would get now. None: no batch size is left."""
    next_reason: str
    """Why the policy would choose it, or what to do if no batch size is left."""
    cost_bound: float | None = None
    """Cost in joules above which a run that starts now would be stopped. None: never."""


class Usage(Wire):
    """Energy in joules, time in seconds, and the resulting cost in joules."""

    energy: float
    time: float
    cost: float


class JobSavings(Wire):
    """The costs and savings of a job since its registration. A recurrence is a run that converged."""

    job_id: str
    launches: int
    """Runs that have ended."""
    recurrences: int
    """Runs that have converged."""
    spent: Usage
    """Used by all runs that have ended, including failed runs."""
    default_batch_size: int
    against_default: Usage | None = None
    """Savings compared with the default: every recurrence would have had the mean cost of the default's converged runs.
    None: no run with the default has converged."""
    best_batch_size: int | None = None
    against_best: Usage | None = None
    """Savings compared with always using the best batch size, which the job did not know at its start. A negative value
    is the cost of the search."""


class SavingsQuery(Wire):
    """Query parameters for the savings of all jobs: a range of days, in UTC."""

    since: Day | None = None
    """The first day. None: from the beginning."""
    until: Day | None = None
    """The last day. None: up to now."""
    group_by: Literal["prefix", "job"] = "prefix"
    """`prefix`: the part of a job's id before its first `/` or `-`, for example its team."""


class GroupSavings(Wire):
    """The costs and savings of some jobs, of their runs that ended in a range of days."""

    group: str
    """The prefix, or the job's id; empty for all jobs."""
    jobs: int
    """Jobs with such runs."""
    unknown_jobs: int
    """Those of them whose savings are not known, because their default batch size has never converged."""
    launches: int
    """The runs."""
    recurrences: int
    """Runs that have converged."""
    spent: Usage
    """Used by all the runs, including failed runs and those of jobs with unknown savings."""
    saved: Usage
    """Savings compared with the default, as in `JobSavings`, of the jobs with known savings. The default's mean is that
    of all its runs. Negative: a loss."""
    energy_share_saved: float | None = None
    """Energy saved, as a share of what the default would have used. None: it would have used nothing."""


class Savings(Wire):
    """The savings of all jobs in a range of days, by group."""

    since: Day | None = None
    until: Day | None = None
    group_by: Literal["prefix", "job"]
    total: GroupSavings
    groups: list[GroupSavings]
    """Highest savings of energy first."""


class AuditQuery(PageQuery):
    """Query parameters for a part of the audit log."""

    job_id: Id | None = None
    """Return only entries about this job."""


class AuditRecord(Wire):
    """One entry of the audit log: an action and its actor."""

    at: datetime
    actor: str
    """`token LABEL`, `user NAME`, `own machine` or `command line`."""
    address: str
    action: str
    job_id: str | None = None
    detail: str


class AuditPage(Wire):
    """A part of the audit log, starting at `offset`, newest first. `total` counts all entries."""

    total: int
    entries: list[AuditRecord]


class About(Wire):
    """The product and version in the OpenAPI document."""

    title: Literal["lightning-bso"]
    version: str


class Document(Wire):
    """The part of the server's OpenAPI document that identifies the server."""

    info: About


class Fault(Wire):
    """One fault of a request."""

    loc: list[str | int]
    """Path to the field."""
    msg: str
    type: str


class ErrorAnswer(Wire):
    """The body of every error."""

    message: str
    detail: list[Fault] | None = None
    """With status 422: all faults of the request."""


JobParams = JobSpec
"""The name in Zeus' documentation."""
