"""The three long lists: jobs, trials and the audit log. Each is a description of its columns and filters.

To add a column, add it to a list below, and its value to the rows of `backend.usecases.lists`. To add an order or a
filter, name it in `backend.database.listing` too.
"""

from collections.abc import Sequence
from datetime import datetime

from flask import get_template_attribute, url_for
from flask.typing import ResponseReturnValue
from markupsafe import Markup

from lightning_bso.wire import MAX_INT

from ...core.run_status import CODES, RunStatus, in_words
from ...usecases import lists
from ...usecases.audit import Actor
from ...usecases.lists import ListedJob, ListedTrial
from ...usecases.users import Role
from . import formatting, login
from .blueprint import blueprint
from .breaking import breakable, brief
from .listing import Column, Filter, Listing, Shortcut
from .login import PageUser

MAX_TEAMS = 12
"""The list of jobs links to the jobs of this many teams, those with the most jobs."""


def _when(at: datetime | None) -> Markup:
    return Markup('<span class="when">{}</span>').format(formatting.moment(at))


def _whole(text: str) -> Markup:
    return Markup('<span class="whole">{}</span>').format(text)


def _job_link(job_id: str) -> Markup:
    return Markup('<a href="{}">{}</a>').format(url_for("admin.job", job=job_id), breakable(job_id))


def _job_choice(job_id: str) -> Markup:
    """A box to tick a job in the list of jobs, for the form of `chosen.html`, and the job's link."""
    box = Markup('<input type="checkbox" form="chosen" name="job" value="{0}" aria-label="Tick {0}">').format(job_id)
    return Markup('<span class="tick">{}{}</span>').format(box, _job_link(job_id))


def _trial_link(trial: ListedTrial) -> Markup:
    address = url_for("admin.trial", job=trial.job_id, number=trial.number)
    return Markup('<a href="{}">trial {}</a>').format(address, trial.number)


def _macro(name: str, *arguments: object) -> Markup:
    return Markup(get_template_attribute("admin/macros.html", name)(*arguments))  # noqa: S704 - the macro escapes


def _recommended(row: ListedJob) -> Markup:
    job = row.job
    return _macro("recommended", job.recommended_batch_size, job.default_batch_size, job.best_batch_size)


def _note_columns(endpoint: str) -> Sequence[Column]:
    """Return the columns of a row's note and tags. A tag leads to the rows of the list that have it."""
    return (
        Column(
            "tags",
            "Tags",
            lambda row: " ".join(row.note.tags) if row.note else "",
            show=lambda row: _macro("tags", row.note.tags, endpoint) if row.note and row.note.tags else "",
        ),
        Column(
            "note",
            "Note",
            lambda row: row.note.text if row.note else "",
            show=lambda row: brief(row.note.text) if row.note else "",
        ),
    )


def _batch_size(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a whole number") from None
    if not 0 <= number <= MAX_INT:
        raise ValueError(f"{text!r} is not between 0 and {MAX_INT}")
    return number


def _teams(by: Actor) -> Sequence[Shortcut]:
    return [(f"{team} ({jobs})", {"team": team}) for team, jobs in lists.largest_teams(by, MAX_TEAMS)]


_WENT_WRONG = (RunStatus.FAILED, RunStatus.CRASHED, RunStatus.LOST)
_WITH_REASONS = (RunStatus.FAILED, RunStatus.ENDED)
_CODES: dict[str, Sequence[str]] = {
    RunStatus.RUNNING.value: (),
    "went_wrong": [code for status in _WENT_WRONG for code in CODES[status]],
    **CODES,
    **{code: (code,) for status in _WITH_REASONS for code in CODES[status]},
}
"""The outcome codes that each value of the filter by status stands for."""
_STATUSES: dict[str, str] = {
    "went_wrong": "failed, crashed or lost",
    **{status.value: status.replace("_", " ") for status in RunStatus},
    **{code: in_words(code) for status in _WITH_REASONS for code in CODES[status]},
}
_LAST_NIGHT = {"when": "night"}

JOBS = Listing(
    endpoint="admin.jobs",
    title="Jobs",
    table=lists.JOBS,
    load=lists.load_jobs,
    cells=(
        (
            Column("job", "Job", lambda row: row.job.job_id, show=lambda row: _job_choice(row.job.job_id)),
            Column(
                "paused",
                "Paused",
                lambda row: "paused" if row.job.paused else "",
                show=lambda row: _macro("mark", "paused") if row.job.paused else "",
            ),
            *_note_columns("admin.jobs"),
        ),
        (Column("policy", "Policy", lambda row: row.job.policy, show=lambda row: _whole(row.job.policy)),),
        (Column("gpu", "GPU", lambda row: row.job.gpu_model, show=lambda row: breakable(row.job.gpu_model)),),
        (
            Column("trials", "Trials", lambda row: row.job.trials),
            Column(
                "running",
                "Running",
                lambda row: row.job.running,
                show=lambda row: f"{row.job.running} running" if row.job.running else "",
            ),
        ),
        (
            Column("recommended", "Recommended", lambda row: row.job.recommended_batch_size, show=_recommended),
            Column("default", "Default", lambda row: row.job.default_batch_size, show=lambda _row: ""),
            Column("best", "Lowest mean", lambda row: row.job.best_batch_size, show=lambda _row: ""),
        ),
        (
            Column(
                "launched",
                "Last launch",
                lambda row: formatting.utc(row.job.last_launch_at),
                show=lambda row: _when(row.job.last_launch_at),
                csv_label="Last launch (UTC)",
            ),
        ),
        (
            Column(
                "created",
                "Created",
                lambda row: formatting.utc(row.job.created_at),
                show=lambda row: _when(row.job.created_at),
                csv_label="Created (UTC)",
            ),
        ),
    ),
    filters=(
        Filter("prefix", "Job begins with"),
        Filter("team", "Team"),
        Filter("tag", "Tag", parse=str.lower),
        Filter("policy", "Policy", options={"gp-ucb": "gp-ucb", "zeus": "zeus"}),
        Filter("gpu", "GPU"),
        Filter("paused", "Paused", options={"1": "yes", "0": "no"}, parse=lambda text: text == "1"),
    ),
    searched="Job, GPU",
    dated="Had runs",
    shortcuts=_teams,
)

TRIALS = Listing(
    endpoint="admin.trials",
    title="Trials",
    table=lists.TRIALS,
    load=lists.load_trials,
    cells=(
        (
            Column("job", "Job", lambda trial: trial.job_id, show=lambda trial: _job_link(trial.job_id)),
            Column("trial", "Trial", lambda trial: trial.number, show=_trial_link),
            *_note_columns("admin.trials"),
        ),
        (
            Column(
                "status",
                "Status",
                lambda trial: in_words(trial.outcome_code),
                show=lambda trial: _macro("badge", trial.outcome_code),
            ),
            Column("outcome_text", "Outcome in words", lambda trial: trial.outcome, lambda trial: brief(trial.outcome)),
        ),
        (
            Column(
                "batch_size",
                "Batch size",
                lambda trial: trial.batch_size,
                show=lambda trial: _macro(
                    "size", trial.batch_size, trial.default_batch_size, trial.recommended_batch_size
                ),
            ),
        ),
        (
            Column(
                "cost",
                "Cost",
                lambda trial: trial.cost_j,
                show=lambda trial: _whole(formatting.amount(trial.cost_j, "J")),
                csv_label="Cost (J)",
            ),
            Column(
                "epochs",
                "Epochs",
                lambda trial: trial.epochs,
                show=lambda trial: _whole("1 epoch" if trial.epochs == 1 else f"{trial.epochs} epochs"),
            ),
        ),
        (
            Column(
                "energy",
                "Energy",
                lambda trial: trial.energy_j,
                show=lambda trial: _whole(formatting.amount(trial.energy_j, "J")),
                csv_label="Energy (J)",
            ),
            Column(
                "time",
                "Time",
                lambda trial: trial.time_s,
                show=lambda trial: _whole(formatting.duration(trial.time_s)),
                csv_label="Time (s)",
            ),
        ),
        (
            Column(
                "started",
                "Started",
                lambda trial: formatting.utc(trial.started_at),
                show=lambda trial: _when(trial.started_at),
                csv_label="Started (UTC)",
            ),
        ),
        (
            Column("host", "Host", lambda trial: trial.host, show=lambda trial: breakable(trial.host or "")),
            Column("energy_source", "Energy source", lambda trial: trial.energy_source),
        ),
        (
            Column(
                "reason",
                "Reason for the batch size",
                lambda trial: trial.reason,
                show=lambda trial: brief(trial.reason),
            ),
        ),
    ),
    filters=(
        Filter("status", "Status", options=_STATUSES, parse=_CODES.__getitem__),
        Filter("prefix", "Job begins with"),
        Filter("job", "Job"),
        Filter("tag", "Tag", parse=str.lower),
        Filter("batch_size", "Batch size", parse=_batch_size),
    ),
    searched="Job, run, host, reason, outcome",
    dated="Started",
    shortcuts=lambda _by: (
        ("Last night’s failures", {"status": "went_wrong"} | _LAST_NIGHT),
        ("All of last night", _LAST_NIGHT),
        ("Failures of 7 days", {"status": "went_wrong", "when": "7d"}),
        ("Running now", {"status": "running"}),
    ),
)

AUDIT = Listing(
    endpoint="admin.audit",
    title="Audit",
    table=lists.AUDIT,
    load=lists.load_audit,
    cells=(
        (
            Column(
                "at",
                "Time",
                lambda entry: formatting.utc(entry.at),
                show=lambda entry: _when(entry.at),
                csv_label="Time (UTC)",
            ),
        ),
        (Column("actor", "Actor", lambda entry: entry.actor, show=lambda entry: breakable(entry.actor)),),
        (Column("address", "Address", lambda entry: entry.address),),
        (Column("action", "Action", lambda entry: entry.action),),
        (Column("job", "Job", lambda entry: entry.job_id, show=lambda entry: breakable(entry.job_id or "")),),
        (Column("detail", "Detail", lambda entry: entry.detail),),
    ),
    filters=(Filter("action", "Action"), Filter("job", "Job")),
    searched="Actor, job, detail, address",
    dated="Time",
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
