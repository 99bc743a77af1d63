"""The page of access tokens: create a token, list them, revoke one."""

from flask import flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from ... import COMMAND
from ...errors import ServiceError
from ...usecases import tokens, users
from ...usecases.tokens import Scope
from ...usecases.users import Role
from . import login
from .blueprint import blueprint
from .login import PageUser
from .parameters import prefix


@blueprint.route("/tokens/", methods=["GET", "POST"], endpoint="tokens")
@login.requires(Role.ADMIN)
def show_tokens(user: PageUser) -> ResponseReturnValue:
    """Show the page; a POST creates a token, which the page shows once.

    The first token may come with the first user, who is logged in at once.
    """
    is_first = not login.is_required()
    new_token, problem = _create_token(user, is_first=is_first) if request.method == "POST" else (None, None)
    page = render_template(
        "admin/tokens.html",
        tokens=tokens.list_all(user.actor)[::-1],
        scopes=list(Scope),
        new_token=new_token,
        problem=problem,
        typed=request.form if problem else {},
        is_first=is_first and new_token is None,
        is_closed=is_first and new_token is not None and not users.any_exist(),
        min_length=users.MIN_PASSWORD_LENGTH,
        command=COMMAND,
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


def _create_token(user: PageUser, *, is_first: bool) -> tuple[str | None, str | None]:
    """Create a token from the form. Returns the token, or the problem with the form."""
    form = request.form
    label, days = form.get("label", "").strip(), form.get("days", "").strip()
    if form.get("scope") not in list(Scope):
        return None, "Choose a scope."
    try:
        valid_days = float(days) if days else None
    except ValueError:
        return None, "Enter a number of days, or leave the field empty for a token that never expires."
    name, password = form.get("name", "").strip(), form.get("password", "")
    has_user = is_first and bool(name or password)
    if is_first and not has_user and "no_user" not in form:
        return None, "Enter a name and a password for yourself, or say that you want no user yet."
    try:
        token = tokens.create(
            label,
            Scope(form["scope"]),
            valid_days=valid_days,
            job_id_prefix=prefix(form),
            by=user.actor,
            first_user=(name, password) if has_user else None,
        )
    except ServiceError as error:
        return None, str(error)
    if has_user:
        login.log_in(name, password)
    return token, None
