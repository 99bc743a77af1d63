"""Two jobs side by side."""

from flask import flash, jsonify, render_template
from flask.typing import ResponseReturnValue

from ...errors import ServiceError
from ...usecases import reading
from ...usecases.users import Role
from . import login, plots
from .blueprint import blueprint
from .login import PageUser
from .parameters import job_id


@blueprint.get("/compare/", endpoint="compare")
@login.requires(Role.VIEWER)
def show_comparison(user: PageUser) -> ResponseReturnValue:
    """Show the page; the tables only if both jobs exist."""
    job_ids, jobs = _job_ids(), []
    for name in filter(None, job_ids):
        try:
            jobs.append((reading.describe(name, user.actor), reading.savings(name, user.actor)))
        except ServiceError as error:
            flash(str(error), "error")
    return render_template("admin/compare.html", job_ids=job_ids, jobs=jobs if len(jobs) == 2 else [])


@blueprint.get("/compare/plots")
@login.requires(Role.VIEWER)
def comparison_plots(user: PageUser) -> ResponseReturnValue:
    """The figure."""
    return jsonify(figures=plots.comparison([reading.describe(name, user.actor) for name in _job_ids()]))


def _job_ids() -> list[str]:
    return [job_id("a"), job_id("b")]
