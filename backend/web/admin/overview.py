"""The overview: the state of all jobs on one page."""

from flask import current_app, render_template, request
from flask.typing import ResponseReturnValue

from backend.usecases import dashboard
from backend.usecases.users import Role
from backend.web.admin import login
from backend.web.admin.blueprint import blueprint
from backend.web.admin.login import PageUser


@blueprint.get("/", endpoint="overview")
@login.requires(Role.VIEWER)
def show_overview(user: PageUser) -> ResponseReturnValue:
    """Show the overview."""
    overview = dashboard.overview(user.actor, current_app.config["LEASE_S"])
    return render_template("admin/overview.html", overview=overview, server=request.url_root.rstrip("/"))
