"""The page of users: create a user, change one, list them.

Who is limited to some jobs gets no access. The user's own password: `account.py`.
"""

from flask import flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from ...errors import ServiceError, TokenLacksScope
from ...usecases import users
from ...usecases.audit import jobs_of
from ...usecases.users import Role
from . import login
from .blueprint import blueprint
from .login import PageUser
from .parameters import prefix


@blueprint.route("/users/", methods=["GET", "POST"], endpoint="users")
@login.requires(Role.ADMIN)
def show_users(user: PageUser) -> ResponseReturnValue:
    """Show the page; a POST creates a user. The first user is logged in at once."""
    _check(user)
    if request.method == "GET":
        return _page()
    is_first, form = not users.any_exist(), request.form
    name, password = form.get("name", "").strip(), form.get("password", "")
    role = Role.ADMIN if is_first else form.get("role", "")
    if role not in list(Role):
        return _page("Choose a role.")
    limit = None if is_first else prefix(form)
    try:
        users.create(name, password, Role(role), user.actor, job_id_prefix=limit)
    except ServiceError as error:
        return _page(str(error), status=error.status)
    if is_first:
        login.log_in(name, password)
    flash(f"Created: {name}, {role}, {jobs_of(limit)}")
    return redirect(url_for("admin.users"))


@blueprint.post("/users/change")
@login.requires(Role.ADMIN)
def change_user(user: PageUser) -> ResponseReturnValue:
    """Change a user's rights or password, as far as the form has their fields."""
    _check(user)
    form = request.form
    name, role = form.get("name", ""), form.get("role")
    if role is not None and role not in list(Role):
        return _page("Choose a role.", changed=name)
    limit = prefix(form) if "prefix" in form else None
    try:
        users.change(
            name,
            user.actor,
            password=form.get("password"),
            role=None if role is None else Role(role),
            job_id_prefix=limit,
            all_jobs="prefix" in form and limit is None,
            disabled=form["disabled"] == "1" if "disabled" in form else None,
        )
    except ServiceError as error:
        return _page(str(error), status=error.status, changed=name)
    flash(f"Changed: {name}. The user's sessions have ended.")
    return redirect(url_for("admin.users"))


def _check(user: PageUser) -> None:
    if not user.manages_users:
        raise TokenLacksScope("you are limited to some jobs; an administrator of all jobs manages the users")


def _page(problem: str | None = None, *, status: int = 422, changed: str | None = None) -> ResponseReturnValue:
    """Make the page.

    Args:
        problem: why the form was refused. It keeps what was typed, passwords excepted.
        status: status of the answer if there is a problem.
        changed: the user whose form was refused; None: it was the form for a new user.
    """
    page = render_template(
        "admin/users.html",
        accounts=users.list_all(),
        roles=list(Role),
        min_length=users.MIN_PASSWORD_LENGTH,
        actor_name=users.actor_name,
        problem=problem,
        changed=changed,
        typed=request.form if problem else {},
    )
    return (page, status) if problem else page
