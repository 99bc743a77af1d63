"""Up to six jobs side by side, chosen from a list that the server searches."""

from flask import flash, jsonify, render_template, request
from flask.typing import ResponseReturnValue

from lightning_bso.wire import MAX_ID_LENGTH

from ...database.queries import JobFilter
from ...errors import ServiceError
from ...usecases import reading
from ...usecases.audit import Actor
from ...usecases.users import Role
from . import login, plots
from .blueprint import blueprint
from .login import PageUser
from .parameters import job_id

MAX_JOBS = 6
MAX_FOUND = 20
"""Jobs to choose from. A search finds others."""


@blueprint.get("/compare/", endpoint="compare")
@login.requires(Role.VIEWER)
def show_comparison(user: PageUser) -> ResponseReturnValue:
    """Show the jobs of the parameters `job`, or the job `like` with its like on other GPU models."""
    names, jobs = _chosen(user.actor), []
    if len(names) > MAX_JOBS:
        flash(f"At most {MAX_JOBS} jobs are compared, so the last {len(names) - MAX_JOBS} are left out.", "error")
    for name in names[:MAX_JOBS]:
        try:
            jobs.append((reading.describe(name, user.actor), reading.savings(name, user.actor)))
        except ServiceError as error:
            flash(str(error), "error")
    if request.args.get("like") and len(jobs) == 1:
        flash("No other GPU model has a job of this training. Choose other jobs to compare with.")
    job_ids = [job.spec.job_id for job, _ in jobs]
    search = request.args.get("search", "")[:MAX_ID_LENGTH]
    which = JobFilter(user.actor.job_id_prefix, search.strip() or None)
    found = reading.list_jobs(which, 0, MAX_FOUND + len(jobs))
    return render_template(
        "admin/compare.html",
        jobs=jobs,
        job_ids=job_ids,
        found=[job for job in found.jobs if job.job_id not in job_ids][:MAX_FOUND],
        found_count=found.total,
        search=search,
        max_jobs=MAX_JOBS,
        figures=plots.COMPARED,
    )


@blueprint.get("/compare/plots")
@login.requires(Role.VIEWER)
def comparison_plots(user: PageUser) -> ResponseReturnValue:
    """The figures."""
    jobs = [reading.describe(name, user.actor) for name in _chosen(user.actor)[:MAX_JOBS]]
    return jsonify(figures=plots.comparison(jobs))


def _chosen(by: Actor) -> list[str]:
    """The ids of the jobs to compare, each once."""
    like = job_id("like")
    chosen = [like, *reading.on_other_gpus(like, MAX_JOBS - 1, by)] if like else request.args.getlist("job")
    return list(dict.fromkeys(name[: MAX_ID_LENGTH + 1] for name in chosen if name))
