"""The page of access tokens: create a token, list them, revoke one."""

from flask import flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from ...errors import ServiceError
from ...usecases import tokens
from ...usecases.audit import Actor
from ...usecases.tokens import Scope
from ...usecases.users import Role
from . import login
from .blueprint import blueprint
from .login import PageUser
from .parameters import prefix


@blueprint.route("/tokens/", methods=["GET", "POST"], endpoint="tokens")
@login.requires(Role.ADMIN)
def show_tokens(user: PageUser) -> ResponseReturnValue:
    """Show the page; a POST creates a token, which the page shows once."""
    new_token, problem = _create_token(user.actor) if request.method == "POST" else (None, None)
    page = render_template(
        "admin/tokens.html",
        tokens=tokens.list_all(user.actor)[::-1],
        scopes=list(Scope),
        new_token=new_token,
        problem=problem,
    )
    return (page, 422) if problem else page


@blueprint.post("/tokens/revoke")
@login.requires(Role.ADMIN)
def revoke_token(user: PageUser) -> ResponseReturnValue:
    """Revoke all tokens with a label."""
    label = request.form.get("label", "")
    tokens.revoke(label, user.actor)
    flash(f"Revoked: {label}")
    return redirect(url_for("admin.tokens"))


def _create_token(by: Actor) -> tuple[str | None, str | None]:
    """Create a token from the form. Returns the token, or the problem with the form."""
    form = request.form
    label, days = form.get("label", "").strip(), form.get("days", "").strip()
    if form.get("scope") not in list(Scope):
        return None, "Choose a scope."
    try:
        valid_days = float(days) if days else None
    except ValueError:
        return None, "Enter a number of days, or leave the field empty for a token that never expires."
    try:
        token = tokens.create(label, Scope(form["scope"]), valid_days=valid_days, job_id_prefix=prefix(form), by=by)
    except ServiceError as error:
        return None, str(error)
    return token, None
