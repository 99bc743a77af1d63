"""The tables. They hold facts only: the core computes stages, arms and savings from them.

A change here needs a migration (`python -m backend db migrate -m "…"`) and a line in `store.py` or `states.py`.
"""

from datetime import date, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Date,
    DateTime,
    Double,
    ForeignKey,
    Index,
    Integer,
    String,
    Text,
    UniqueConstraint,
    false,
)
from sqlalchemy.dialects.mysql import DATETIME, LONGTEXT
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.sql.functions import FunctionElement

from lightning_bso.wire import MAX_ID_LENGTH, MAX_RUN_ID_LENGTH

from .extensions import Base


class ExactString(String):
    """Text that is compared byte by byte: case, accents and trailing spaces all count.

    The default binary collations of MySQL and MariaDB ignore trailing spaces. Each has another collation that does not.
    PostgreSQL's default one depends on the operating system, an update of which can spoil an index.
    """


@compiles(ExactString)
def _exact_string(type_: ExactString, _compiler: Any, **_: Any) -> str:
    return f"VARCHAR({type_.length})"


@compiles(ExactString, "mysql")
@compiles(ExactString, "mariadb")
def _exact_string_mysql(type_: ExactString, compiler: Any, **_: Any) -> str:
    collation = "utf8mb4_nopad_bin" if compiler.dialect.is_mariadb else "utf8mb4_0900_bin"
    return f"VARCHAR({type_.length}) CHARACTER SET utf8mb4 COLLATE {collation}"


@compiles(ExactString, "postgresql")
def _exact_string_postgresql(type_: ExactString, _compiler: Any, **_: Any) -> str:
    return f'VARCHAR({type_.length}) COLLATE "C"'


class utc_now(FunctionElement[datetime]):  # noqa: N801 - an SQL function, written like one
    """The database's clock, in UTC. All replicas use this clock."""

    type = DateTime()
    inherit_cache = True


@compiles(utc_now)
def _utc_now(_element: utc_now, _compiler: Any, **_: Any) -> str:
    return "CURRENT_TIMESTAMP"  # in the session's time zone, so `schema` checks that this is UTC


@compiles(utc_now, "postgresql")
@compiles(utc_now, "cockroachdb")
def _utc_now_postgresql(_element: utc_now, _compiler: Any, **_: Any) -> str:
    return "timezone('utc', clock_timestamp())"  # CURRENT_TIMESTAMP is the start of the transaction


@compiles(utc_now, "sqlite")
def _utc_now_sqlite(_element: utc_now, _compiler: Any, **_: Any) -> str:
    return "strftime('%Y-%m-%d %H:%M:%f', 'now') || '000'"  # SQLite gives milliseconds, the format has microseconds


@compiles(utc_now, "mysql")
@compiles(utc_now, "mariadb")
def _utc_now_mysql(_element: utc_now, _compiler: Any, **_: Any) -> str:
    return "UTC_TIMESTAMP(6)"


class as_json(FunctionElement[Any]):  # noqa: N801 - an SQL function, written like one
    """A text with JSON, whose members can be read by their names. Only PostgreSQL has to be told that it is JSON."""

    type = JSON()
    inherit_cache = True


@compiles(as_json)
def _as_json(element: as_json, compiler: Any, **options: Any) -> str:
    return str(compiler.process(element.clauses, **options))


@compiles(as_json, "postgresql")
@compiles(as_json, "cockroachdb")
def _as_json_postgresql(element: as_json, compiler: Any, **options: Any) -> str:
    return f"CAST({compiler.process(element.clauses, **options)} AS JSON)"


MYSQL_OPTIONS = {"mysql_charset": "utf8mb4", "mysql_engine": "InnoDB"}
"""Full Unicode and transactions, regardless of the database's defaults."""

Utc = DateTime().with_variant(DATETIME(fsp=6), "mysql", "mariadb")  # MySQL's DATETIME drops fractions of a second

LongText = Text().with_variant(LONGTEXT(), "mysql", "mariadb")  # MySQL's TEXT holds at most 64 KiB


class Job(Base):
    """A training that recurs."""

    __tablename__ = "jobs"
    __table_args__ = MYSQL_OPTIONS

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    job_id: Mapped[str] = mapped_column(ExactString(MAX_ID_LENGTH), unique=True)
    spec: Mapped[str] = mapped_column(Text)
    """Canonical JSON. Stored as text, because JSON columns of some databases rewrite numbers."""
    seed: Mapped[int] = mapped_column(BigInteger)
    rng_position: Mapped[str] = mapped_column(Text)
    """Position of the job's random generator. A choice that draws from it stores the new position with itself."""
    warm_start: Mapped[str | None] = mapped_column(LongText)
    """Evidence taken from another job at registration: a core `WarmStart` as JSON."""
    probes: Mapped[str | None] = mapped_column(LongText)
    """Results of probes by exploration, as JSON (`states.add_probe`)."""
    breakdowns: Mapped[str | None] = mapped_column(LongText)
    """Breakdowns by exploration, as JSON (`states.add_breakdown`). Few are kept, so every decision can read them."""
    targets: Mapped[str | None] = mapped_column(LongText)
    """Targets that the job has learnt, by exploration, as JSON (`states.add_target`)."""
    max_device_batch_size: Mapped[int | None] = mapped_column(Integer)
    """The largest batch that runs take on a device at a time, because more ran out of memory. NULL: none is known."""
    revision: Mapped[int] = mapped_column(BigInteger, default=0)
    """Raised by every transaction that changes the job. It serves as the job's lock and as its logical clock."""
    exploration: Mapped[int] = mapped_column(Integer, default=0)
    """Raised by a reset. Only trials of the current exploration count in decisions."""
    oldest_seen_at: Mapped[datetime | None] = mapped_column(Utc)
    """No running trial was last seen before this, so until a lease later no lease can have expired. NULL: not known."""
    paused: Mapped[bool] = mapped_column(Boolean, default=False, server_default=false())
    """Whether every run gets the default batch size."""
    policy: Mapped[str] = mapped_column(String(16), server_default="")
    """Copied from the spec, for searches. A spec never changes."""
    gpu_model: Mapped[str] = mapped_column(ExactString(MAX_ID_LENGTH), server_default="")
    """Copied from the spec, for searches."""
    created_at: Mapped[datetime] = mapped_column(Utc, index=True)
    summed_revision: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    """Raised with `revision`. The sums below hold while both are equal; a release that does not know them raises only
    `revision`, and the next call of a run then counts them anew (`sums.recount`)."""
    launches: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    """Number of the job's trials, and so the number of the last one."""
    last_launch_at: Mapped[datetime | None] = mapped_column(Utc)
    idle_from: Mapped[datetime | None] = mapped_column(Utc)
    """When the job will have been idle for too long, unless it runs again (`core.attention`). NULL: not known."""
    team: Mapped[str] = mapped_column(ExactString(MAX_ID_LENGTH), server_default="")
    """Copied from `job_id`, for sums (`core.savings.team_of`)."""
    drifted_trial: Mapped[int | None] = mapped_column(Integer)
    """Number of the last trial at whose end the policy found that the costs have changed. NULL: none since a reset."""
    last_success: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    """Number of the last trial that converged, but for those beside an exploration or of a paused job; 0: none."""
    last_verdict: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    """Number of the last trial with a verdict, or that a target is to be learnt from; 0: none."""
    runs: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    """Number of the trials that have ended."""
    recurrences: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    """Number of the trials that converged."""
    energy_j: Mapped[float] = mapped_column(Double, default=0.0, server_default="0")
    """Of the trials that have ended, like the next two."""
    time_s: Mapped[float] = mapped_column(Double, default=0.0, server_default="0")
    cost_j: Mapped[float] = mapped_column(Double, default=0.0, server_default="0")
    default_recurrences: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    """Number of the trials that converged with the default batch size. The next three are of these trials."""
    default_energy_j: Mapped[float] = mapped_column(Double, default=0.0, server_default="0")
    default_time_s: Mapped[float] = mapped_column(Double, default=0.0, server_default="0")
    default_cost_j: Mapped[float] = mapped_column(Double, default=0.0, server_default="0")


class JobDay(Base):
    """Sums over the trials of a job that ended on a day, in UTC."""

    __tablename__ = "job_days"
    __table_args__ = MYSQL_OPTIONS

    job: Mapped[int] = mapped_column(ForeignKey(Job.id, ondelete="CASCADE"), primary_key=True)
    day: Mapped[date] = mapped_column(Date, primary_key=True, index=True)
    runs: Mapped[int] = mapped_column(Integer)
    recurrences: Mapped[int] = mapped_column(Integer)
    energy_j: Mapped[float] = mapped_column(Double)
    time_s: Mapped[float] = mapped_column(Double)
    cost_j: Mapped[float] = mapped_column(Double)


class Trial(Base):
    """One run of a job with one batch size."""

    __tablename__ = "trials"
    __table_args__ = (
        UniqueConstraint("job", "number"),
        UniqueConstraint("job", "run_id"),
        Index("ix_trials_seen", "status", "last_seen_at"),
        Index("ix_trials_started", "started_at"),
        Index("ix_trials_outcome", "outcome_code", "started_at"),
        Index("ix_trials_progress", "job", "status", "exploration", "ended_revision", "batch_size", "epochs"),
        MYSQL_OPTIONS,
    )

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    job: Mapped[int] = mapped_column(ForeignKey(Job.id, ondelete="CASCADE"))
    number: Mapped[int] = mapped_column(Integer)
    run_id: Mapped[str | None] = mapped_column(ExactString(MAX_RUN_ID_LENGTH))
    exploration: Mapped[int] = mapped_column(Integer)
    batch_size: Mapped[int] = mapped_column(Integer)
    type: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str] = mapped_column(Text)
    """Why the policy chose this batch size."""
    bound_factor: Mapped[float | None] = mapped_column(Double)  # no default: it would replace None
    """Multiple of the usual cost bound that the run may cost. NULL: no bound."""
    epoch_limit_j: Mapped[float | None] = mapped_column(Double)
    """Highest cost of the first epoch, in joules, after which the run goes on. NULL: no limit."""
    status: Mapped[str] = mapped_column(String(16))
    outcome_code: Mapped[str | None] = mapped_column(String(16))
    """Why the trial ended, as a code: a core `VerdictCode`, `ended`, `left`, `stopped` or `lost`."""
    outcome: Mapped[str | None] = mapped_column(Text)
    """Why the trial ended, as text for users."""
    converged: Mapped[bool | None] = mapped_column(Boolean)
    energy_j: Mapped[float] = mapped_column(Double, default=0.0)
    time_s: Mapped[float] = mapped_column(Double, default=0.0)
    epochs: Mapped[int] = mapped_column(Integer, default=0)
    best_metric: Mapped[float | None] = mapped_column(Double)
    """The best metric of the run. NULL: it has reported no number, or an earlier release stored the run."""
    energy_after_j: Mapped[float] = mapped_column(Double, default=0.0, server_default="0")
    """Energy of the training after the verdict."""
    time_after_s: Mapped[float] = mapped_column(Double, default=0.0, server_default="0")
    """Time of the training after the verdict."""
    energy_source: Mapped[str | None] = mapped_column(String(16))
    host: Mapped[str | None] = mapped_column(ExactString(MAX_ID_LENGTH))
    """Name of the machine that asked, as given by the caller."""
    process: Mapped[str | None] = mapped_column(ExactString(MAX_ID_LENGTH))
    """Name of the process that was the last to ask or to report. NULL: that one gave no name."""
    accumulate_grad_batches: Mapped[int] = mapped_column(Integer, default=1, server_default="1")
    """Number of parts into which each device split its share of a batch."""
    started_revision: Mapped[int] = mapped_column(BigInteger)
    ended_revision: Mapped[int | None] = mapped_column(BigInteger)
    started_at: Mapped[datetime] = mapped_column(Utc)
    last_seen_at: Mapped[datetime] = mapped_column(Utc)
    ended_at: Mapped[datetime | None] = mapped_column(Utc)


class Report(Base):
    """One report of a trial and the verdict on it."""

    __tablename__ = "reports"
    __table_args__ = MYSQL_OPTIONS

    trial: Mapped[int] = mapped_column(ForeignKey(Trial.id, ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    epoch: Mapped[int] = mapped_column(Integer)
    metric: Mapped[float | None] = mapped_column(Double)
    """NULL: the metric was NaN or infinite, or the run was out of memory."""
    energy_j: Mapped[float] = mapped_column(Double)
    time_s: Mapped[float] = mapped_column(Double)
    code: Mapped[str] = mapped_column(String(16))
    """The verdict, a core `VerdictCode`."""
    message: Mapped[str] = mapped_column(Text)
    revision: Mapped[int] = mapped_column(BigInteger)
    expired_revision: Mapped[int | None] = mapped_column(BigInteger)
    """If this report revived a lost trial: the revision at which the trial's lease expired."""
    received_at: Mapped[datetime] = mapped_column(Utc)


class Note(Base):
    """What users have noted about a job or a trial: a text and tags. The audit log has the earlier ones."""

    __tablename__ = "notes"
    __table_args__ = MYSQL_OPTIONS

    job: Mapped[int] = mapped_column(ForeignKey(Job.id, ondelete="CASCADE"), primary_key=True)
    trial_number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    """0: the note is about the job itself."""
    text: Mapped[str] = mapped_column(Text)
    tags: Mapped[str] = mapped_column(Text)
    """Written by `core.tags.pack`."""
    actor: Mapped[str] = mapped_column(ExactString(MAX_ID_LENGTH + 16))
    """Who wrote it last."""
    at: Mapped[datetime] = mapped_column(Utc)


class StoredBelief(Base):
    """A summary of the ended trials of an exploration. It is a cache: the same trials always give the same summary."""

    __tablename__ = "beliefs"
    __table_args__ = MYSQL_OPTIONS

    job: Mapped[int] = mapped_column(ForeignKey(Job.id, ondelete="CASCADE"), primary_key=True)
    exploration: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    summary: Mapped[str] = mapped_column("told", LongText)
    """Text written by `core.stored`."""


class Token(Base):
    """An access token. The token itself is not stored, only its hash."""

    __tablename__ = "tokens"
    __table_args__ = MYSQL_OPTIONS

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    label: Mapped[str] = mapped_column(ExactString(MAX_ID_LENGTH))
    hash: Mapped[str] = mapped_column(String(64), unique=True)
    """SHA-256, hexadecimal."""
    scope: Mapped[str] = mapped_column(String(16))
    job_id_prefix: Mapped[str | None] = mapped_column(ExactString(MAX_ID_LENGTH))
    """Limits the token to jobs whose ids start with this. NULL: all jobs."""
    created_at: Mapped[datetime] = mapped_column(Utc)
    expires_at: Mapped[datetime | None] = mapped_column(Utc)
    revoked_at: Mapped[datetime | None] = mapped_column(Utc)


class User(Base):
    """A user of the admin page."""

    __tablename__ = "users"
    __table_args__ = MYSQL_OPTIONS

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    name: Mapped[str] = mapped_column(ExactString(MAX_ID_LENGTH), unique=True)
    password_hash: Mapped[str] = mapped_column(String(255))
    role: Mapped[str] = mapped_column(String(16))
    job_id_prefix: Mapped[str | None] = mapped_column(ExactString(MAX_ID_LENGTH))
    """Limits the user to jobs whose ids start with this. NULL: all jobs."""
    sessions: Mapped[int] = mapped_column(Integer, default=0)
    """Raised to end all sessions of the user. A session is valid while it holds the current number."""
    created_at: Mapped[datetime] = mapped_column(Utc)
    disabled_at: Mapped[datetime | None] = mapped_column(Utc)


class AuditEntry(Base):
    """An action of an actor. Rows are added and never changed. They outlive the job that they are about."""

    __tablename__ = "audit"
    __table_args__ = (Index("ix_audit_action", "action", "at"), MYSQL_OPTIONS)

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    at: Mapped[datetime] = mapped_column(Utc, index=True)
    actor: Mapped[str] = mapped_column(ExactString(MAX_ID_LENGTH + 16), index=True)
    """`token LABEL`, `user NAME`, `unknown user CODE`, `own machine`, `anyone` or `command line`."""
    address: Mapped[str] = mapped_column(String(64))
    """Address that the call came from; empty on the command line."""
    action: Mapped[str] = mapped_column(String(32))
    job_id: Mapped[str | None] = mapped_column(ExactString(MAX_ID_LENGTH), index=True)
    detail: Mapped[str] = mapped_column(Text)


class Secret(Base):
    """A secret that all replicas share, such as the key that signs sessions."""

    __tablename__ = "secrets"
    __table_args__ = MYSQL_OPTIONS

    name: Mapped[str] = mapped_column(String(32), primary_key=True)
    value: Mapped[str] = mapped_column(String(255))
