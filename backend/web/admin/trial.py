"""A trial's page: the trial report by report."""

from flask import jsonify, render_template, request
from flask.typing import ResponseReturnValue

from ...usecases import dashboard, notes, reading
from ...usecases.users import Role
from . import login, plots
from .blueprint import blueprint
from .login import PageUser
from .parameters import job_id, trial_number

REPORTS_PER_PAGE = 200


@blueprint.get("/trial/", endpoint="trial")
@login.requires(Role.VIEWER)
def show_trial(user: PageUser) -> ResponseReturnValue:
    """Show the page."""
    return page(user, trial_number(request.args.get("number")))


def page(user: PageUser, number: int, problem: str | None = None) -> str:
    """Make the page.

    Args:
        user: the user.
        number: the trial's number.
        problem: why its note was refused. The form keeps what was typed.
    """
    job, actor = job_id(), user.actor
    offset = min(request.args.get("offset", 0, type=int) % (1 << 31), 1 << 30)
    revision = dashboard.revision(job, actor)  # read first, so the browser refreshes if anything changes meanwhile
    trial = dashboard.trial(job, number, actor)
    total, reports = dashboard.list_reports(job, number, offset, REPORTS_PER_PAGE, actor)
    return render_template(
        "admin/trial.html",
        job_id=job,
        job=reading.describe(job, actor),
        note=notes.read(job, number, actor),
        trial_count=reading.count_trials(job, actor),
        target_metric=dashboard.target_metric(job, number, actor),
        trial=trial,
        reports=reports,
        total=total,
        offset=offset,
        revision=revision,
        page_size=REPORTS_PER_PAGE,
        problem=problem,
    )


@blueprint.get("/trial/plots")
@login.requires(Role.VIEWER)
def trial_plots(user: PageUser) -> ResponseReturnValue:
    """The figures of the last reports; 204 if the page already shows the current revision."""
    job, actor, number = job_id(), user.actor, trial_number(request.args.get("number"))
    revision = dashboard.revision(job, actor)
    if request.args.get("since") == str(revision):
        return "", 204
    total, _ = dashboard.list_reports(job, number, 0, 0, actor)
    first = max(0, total - REPORTS_PER_PAGE)
    _, reports = dashboard.list_reports(job, number, first, REPORTS_PER_PAGE, actor)
    return jsonify(figures=plots.progress(dashboard.target_metric(job, number, actor), reports), revision=revision)
