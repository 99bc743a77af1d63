"""The page of users: create a user, change one, list them.

Who is limited to some jobs gets no access. The user's own password: `account.py`.
"""

from flask import current_app, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from ...errors import InvalidField, ServiceError, TokenLacksScope
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
    """Show the page; a POST creates a user, or changes the one that the form names."""
    if not user.manages_users:
        raise TokenLacksScope("you are limited to some jobs; an administrator of all jobs manages the users")
    if request.method == "GET":
        return _page()
    changed = request.form.get("changed")
    try:
        done = _create(user) if changed is None else _change(changed, user)
    except ServiceError as error:
        return _page(str(error), status=error.status, changed=changed)
    flash(done)
    return redirect(url_for("admin.users"))


def _create(user: PageUser) -> str:
    """Create a user from the form, and say what was done. The first user is logged in at once."""
    is_first, form = not users.any_exist(), request.form
    name, password = form.get("name", "").strip(), form.get("password", "")
    role = Role.ADMIN if is_first else _role(form.get("role", ""))
    limit = None if is_first else prefix(form)
    at_proxy = not password and current_app.config["AUTH_HEADER"] is not None
    users.create(name, None if at_proxy else password, role, user.actor, job_id_prefix=limit)
    if is_first and not at_proxy:
        login.log_in(name, password)
    return f"Created: {name}, {role}, {jobs_of(limit)}"


def _change(name: str, user: PageUser) -> str:
    """Change a user's rights or password, as far as the form has their fields, and say what was done."""
    form = request.form
    limit = prefix(form) if "prefix" in form else None
    users.change(
        name,
        user.actor,
        password=form.get("password"),
        role=_role(form["role"]) if "role" in form else None,
        job_id_prefix=limit,
        all_jobs="prefix" in form and limit is None,
        disabled=form["disabled"] == "1" if "disabled" in form else None,
    )
    return f"Changed: {name}. The user's sessions have ended."


def _role(text: str) -> Role:
    if text not in list(Role):
        raise InvalidField("role", f"choose one of {', '.join(Role)}")
    return Role(text)


def _page(problem: str | None = None, *, status: int = 200, changed: str | None = None) -> ResponseReturnValue:
    """Make the page.

    Args:
        problem: why the form was refused. It keeps what was typed, passwords excepted.
        status: status of the answer.
        changed: the user whose form was refused; None: it was the form for a new user.
    """
    page = render_template(
        "admin/users.html",
        accounts=users.list_all(),
        roles=list(Role),
        proxy_logs_in=current_app.config["AUTH_HEADER"] is not None,
        min_length=users.MIN_PASSWORD_LENGTH,
        actor_name=users.actor_name,
        problem=problem,
        changed=changed,
        typed=request.form if problem else {},
    )
    return page, status
