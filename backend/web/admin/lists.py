"""The three long lists: jobs, trials and the audit log. Each is a description of its columns and filters.

To add a column, add it to a list below, and its value to the rows of `backend.usecases.lists`. To add an order or a
filter, name it in `backend.database.listing` too.
"""

from datetime import datetime

from flask import get_template_attribute, url_for
from flask.typing import ResponseReturnValue
from markupsafe import Markup

from lightning_bso.wire import MAX_INT

from ...core.run_status import CODES, RunStatus, in_words
from ...usecases import lists
from ...usecases.lists import ListedTrial
from ...usecases.users import Role
from . import login
from .blueprint import blueprint
from .formatting import moment, utc
from .listing import Column, Filter, Listing
from .login import PageUser


def _moment(at: datetime | None) -> str:
    return moment(at) if at else ""


def _job_link(job_id: str) -> Markup:
    return Markup('<a href="{}">{}</a>').format(url_for("admin.job", job=job_id), job_id)


def _job_choice(job_id: str) -> Markup:
    """A box to tick a job in the list of jobs, for the form of `chosen.html`, and the job's link."""
    box = Markup('<input type="checkbox" form="chosen" name="job" value="{0}" aria-label="Tick {0}">').format(job_id)
    return box + _job_link(job_id)


def _trial_link(trial: ListedTrial) -> Markup:
    address = url_for("admin.trial", job=trial.job_id, number=trial.number)
    return Markup('<a href="{}">{}</a>').format(address, trial.number)


def _batch_size(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a whole number") from None
    if not 0 <= number <= MAX_INT:
        raise ValueError(f"{text!r} is not between 0 and {MAX_INT}")
    return number


_BADGE = ("admin/macros.html", "badge")
_WENT_WRONG = (RunStatus.FAILED, RunStatus.CRASHED, RunStatus.LOST)
_CODES: dict[str, tuple[str, ...]] = {
    RunStatus.RUNNING: (),
    "went_wrong": tuple(code for status in _WENT_WRONG for code in CODES[status]),
    **CODES,
    **{code: (code,) for status in (RunStatus.FAILED, RunStatus.ENDED) for code in CODES[status]},
}
"""The outcome codes that each value of the filter by status stands for."""
_STATUSES: dict[str, str] = {
    "went_wrong": "failed, crashed or lost",
    **{status: status.replace("_", " ") for status in RunStatus},
    **{code: in_words(code) for status in (RunStatus.FAILED, RunStatus.ENDED) for code in CODES[status]},
}


def _badge(outcome_code: str | None) -> Markup:
    return Markup(get_template_attribute(*_BADGE)(outcome_code))  # noqa: S704 - the macro escapes


JOBS = Listing(
    endpoint="admin.jobs",
    title="Jobs",
    table=lists.JOBS,
    load=lists.load_jobs,
    columns=(
        Column("job", "Job", lambda job: job.job_id, show=lambda job: _job_choice(job.job_id)),
        Column("policy", "Policy", lambda job: job.policy),
        Column("gpu", "GPU", lambda job: job.gpu_model),
        Column("paused", "Paused", lambda job: "paused" if job.paused else ""),
        Column("trials", "Trials", lambda job: job.trials),
        Column("running", "Running", lambda job: job.running),
        Column("best", "Lowest mean cost at", lambda job: job.best_batch_size),
        Column("last_seen", "Last seen", lambda job: utc(job.last_seen_at), show=lambda job: _moment(job.last_seen_at)),
        Column("created", "Created", lambda job: utc(job.created_at), show=lambda job: _moment(job.created_at)),
    ),
    filters=(
        Filter("policy", "Policy", options={"gp-ucb": "gp-ucb", "zeus": "zeus"}),
        Filter("gpu", "GPU"),
        Filter("paused", "Paused", options={"1": "yes", "0": "no"}, parse=lambda text: text == "1"),
    ),
    searched="Job, GPU",
)

TRIALS = Listing(
    endpoint="admin.trials",
    title="Trials",
    table=lists.TRIALS,
    load=lists.load_trials,
    columns=(
        Column("job", "Job", lambda trial: trial.job_id, show=lambda trial: _job_link(trial.job_id)),
        Column("trial", "Trial", lambda trial: trial.number, show=_trial_link),
        Column("batch_size", "Batch size", lambda trial: trial.batch_size),
        Column(
            "status",
            "Status",
            lambda trial: in_words(trial.outcome_code),
            show=lambda trial: _badge(trial.outcome_code),
        ),
        Column("energy", "Energy (J)", lambda trial: trial.energy_j, show=lambda trial: f"{trial.energy_j:.6g}"),
        Column("time", "Time (s)", lambda trial: trial.time_s, show=lambda trial: f"{trial.time_s:.6g}"),
        Column("cost", "Cost (J)", lambda trial: trial.cost_j, show=lambda trial: f"{trial.cost_j:.6g}"),
        Column("epochs", "Epochs", lambda trial: trial.epochs),
        Column("host", "Host", lambda trial: trial.host),
        Column("energy_source", "Energy source", lambda trial: trial.energy_source),
        Column("started", "Started", lambda trial: utc(trial.started_at), show=lambda trial: _moment(trial.started_at)),
        Column("reason", "Reason for the batch size", lambda trial: trial.reason),
        Column("outcome_text", "Outcome in words", lambda trial: trial.outcome),
    ),
    filters=(
        Filter("job", "Job"),
        Filter("batch_size", "Batch size", parse=_batch_size),
        Filter("status", "Status", options=_STATUSES, parse=_CODES.__getitem__),
    ),
    searched="Job, run, host, outcome",
)

AUDIT = Listing(
    endpoint="admin.audit",
    title="Audit",
    table=lists.AUDIT,
    load=lists.load_audit,
    columns=(
        Column("at", "Time", lambda entry: utc(entry.at), show=lambda entry: _moment(entry.at)),
        Column("actor", "Actor", lambda entry: entry.actor),
        Column("address", "Address", lambda entry: entry.address),
        Column("action", "Action", lambda entry: entry.action),
        Column("job", "Job", lambda entry: entry.job_id),
        Column("detail", "Detail", lambda entry: entry.detail),
    ),
    filters=(Filter("action", "Action"), Filter("job", "Job")),
    searched="Actor, job, detail, address",
)


@blueprint.get("/jobs/")
@login.requires(Role.VIEWER)
def jobs(user: PageUser) -> ResponseReturnValue:
    """The list of all jobs."""
    return JOBS.page(user.actor)


@blueprint.get("/jobs/export/csv/")
@login.requires(Role.VIEWER)
def jobs_csv(user: PageUser) -> ResponseReturnValue:
    """The list of jobs as CSV."""
    return JOBS.csv(user.actor)


@blueprint.get("/trials/")
@login.requires(Role.VIEWER)
def trials(user: PageUser) -> ResponseReturnValue:
    """The list of all trials of all jobs."""
    return TRIALS.page(user.actor)


@blueprint.get("/trials/export/csv/")
@login.requires(Role.VIEWER)
def trials_csv(user: PageUser) -> ResponseReturnValue:
    """The list of trials as CSV."""
    return TRIALS.csv(user.actor)


@blueprint.get("/audit/")
@login.requires(Role.ADMIN)
def audit(user: PageUser) -> ResponseReturnValue:
    """The audit log."""
    return AUDIT.page(user.actor)


@blueprint.get("/audit/export/csv/")
@login.requires(Role.ADMIN)
def audit_csv(user: PageUser) -> ResponseReturnValue:
    """The audit log as CSV."""
    return AUDIT.csv(user.actor)
