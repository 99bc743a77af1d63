"""A user's own page: change the own password."""

from flask import flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from ...errors import ServiceError
from ...usecases import users
from ...usecases.users import Role
from .. import auth
from . import login
from .blueprint import blueprint
from .login import PageUser


@blueprint.route("/account/", methods=["GET", "POST"], endpoint="account")
@login.requires(Role.VIEWER)
def show_account(user: PageUser) -> ResponseReturnValue:
    """Show the page; a POST changes the password and ends the user's other sessions."""
    problem, status = _change_password(user) if request.method == "POST" else (None, 200)
    if problem is None and request.method == "POST":
        flash("Your password is changed. Your other sessions have ended.")
        return redirect(url_for("admin.account"))
    page = render_template(
        "admin/account.html",
        problem=problem,
        min_length=users.MIN_PASSWORD_LENGTH,
    )
    return page, status


def _change_password(user: PageUser) -> tuple[str | None, int]:
    """Change the password as the form says. Returns the problem with the form, if any, and the answer's status."""
    old, new = request.form.get("old", ""), request.form.get("password", "")
    if not user.has_password:
        return "You are not logged in with a password.", 409
    if new != request.form.get("repeated"):
        return "The new passwords differ. Type the same one twice.", 422
    try:
        account = users.change_own_password(user.name, old[: users.MAX_PASSWORD_LENGTH], new, auth.address())
    except ServiceError as error:
        return str(error), error.status
    if account is None:
        return "The old password is wrong.", 422
    login.start_session(account)
    return None, 200
