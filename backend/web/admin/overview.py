"""The overview: the state of all jobs on one page."""

from flask import current_app, render_template, request
from flask.typing import ResponseReturnValue

from ...usecases import overview
from ...usecases.users import Role
from . import login
from .blueprint import blueprint
from .login import PageUser


@blueprint.get("/", endpoint="overview")
@login.requires(Role.VIEWER)
def show_overview(user: PageUser) -> ResponseReturnValue:
    """Show the overview."""
    state = overview.overview(user.actor, current_app.config["LEASE_S"])
    return render_template("admin/overview.html", overview=state, server=request.url_root.rstrip("/"))
