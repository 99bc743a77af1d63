"""Logging in to the admin page, and the role that a page needs.

While the server has neither users nor tokens, its own machine uses the page without a login, as an administrator.
A trusted proxy can log users in itself and name them in a header (`auth_header`).
Passwords and roles: `backend.usecases.users`.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any
from urllib.parse import urlsplit

from flask import current_app, flash, g, redirect, render_template, request, session, url_for
from flask.typing import ResponseReturnValue
from flask_login import LoginManager, UserMixin, current_user, login_user, logout_user

from lightning_bso.wire import MAX_ID_LENGTH

from ... import COMMAND
from ...errors import ServiceError, TokenLacksScope
from ...usecases import users
from ...usecases.audit import Actor
from ...usecases.users import Account, Role
from .. import auth
from .blueprint import blueprint

SESSION_S = 12 * 3600
"""A session ends this long after its login."""

manager = LoginManager()


@dataclass(frozen=True, slots=True)
class PageUser:
    """The user of the admin page in the current request."""

    name: str
    role: Role
    actor: Actor
    has_password: bool = False
    """Whether the user has logged in here, with a password."""

    def may(self, role: str) -> bool:
        """Whether the user may do what needs this role."""
        return self.role.covers(Role(role))

    @property
    def manages_users(self) -> bool:
        """Whether the user may create and change users. Who is limited to some jobs may not."""
        return self.may(Role.ADMIN) and self.actor.job_id_prefix is None


View = Callable[[PageUser], ResponseReturnValue]


def requires(role: Role) -> Callable[[View], Callable[[], ResponseReturnValue]]:
    """Guard a view function. It gets the user as its argument.

    Without a login, the browser is sent to the login page.

    Raises:
        TokenLacksScope: the user's role is lower (403).
    """

    def guard(view: View) -> Callable[[], ResponseReturnValue]:
        @wraps(view)
        def guarded() -> ResponseReturnValue:
            user = get_user()
            if user is None:
                _refuse_user_of_proxy()
                return redirect_to_login()
            if not user.may(role):
                raise TokenLacksScope(f"this needs the role {role}; ask an administrator of this server")
            return view(user)

        return guarded

    return guard


def get_user() -> PageUser | None:
    """The user of the current request; None: the user must log in first."""
    if "page_user" not in g:
        g.page_user = _identify_user()
    user: PageUser | None = g.page_user
    return user


def is_required() -> bool:
    """Whether the page needs a login: once there is a user or a token, and for callers from other machines."""
    return auth.is_guarded() or not auth.is_open_to_caller()


@blueprint.route("/login/", methods=["GET", "POST"], endpoint="login")
def show_login() -> ResponseReturnValue:
    """Show the login page; a POST logs in."""
    target, problem, status = request.args.get("next"), None, 200
    if get_user() is None:
        _refuse_user_of_proxy()
    if request.method == "POST":
        name = request.form.get("name", "")[:MAX_ID_LENGTH]
        password = request.form.get("password", "")[: users.MAX_PASSWORD_LENGTH]
        try:
            if log_in(name, password):
                return redirect(_own_page(target))
            problem, status = "No user has this name and this password.", 401
        except ServiceError as error:
            problem, status = str(error), error.status
    elif get_user() is not None:
        return redirect(_own_page(target))
    page = render_template(
        "admin/login.html",
        command=COMMAND,
        problem=problem,
        no_user_exists=not users.any_exist(),
        unsafe=not (request.is_secure or auth.is_loopback(request.host.rsplit(":", 1)[0])),
    )
    return page, status


def log_in(name: str, password: str) -> bool:
    """Log a user in, if the password is right.

    Raises:
        TooManyAttempts: too many logins of this account or from this address have failed.
    """
    account = users.log_in(name, password, auth.address())
    if account is not None:
        start_session(account)
    return account is not None


@blueprint.post("/login/out")
def log_out() -> ResponseReturnValue:
    """End all sessions of the user."""
    user = get_user()
    if user is not None:
        users.log_out(user.name, user.actor)
    logout_user()
    session.clear()
    g.pop("page_user", None)
    return redirect(url_for("admin.login"))


class _SessionUser(UserMixin):
    def __init__(self, account: Account, began_s: int) -> None:
        self.account, self.began_s = account, began_s

    def get_id(self) -> str:
        return f"{self.began_s}:{self.account.sessions}:{self.account.name}"


@manager.user_loader  # type: ignore[untyped-decorator]
def _load(stored: str) -> _SessionUser | None:
    # The cookie's own age is not enough: every flashed message and every form renews the cookie.
    began, _, rest = stored.partition(":")
    sessions, _, name = rest.partition(":")
    if not (began.isdecimal() and sessions.isdecimal()) or int(began) + SESSION_S < time.time():
        return None
    account = users.in_session(name, int(sessions))
    return None if account is None else _SessionUser(account, int(began))


def _identify_user() -> PageUser | None:
    name = _named_by_proxy()
    if name is not None:  # whatever session there is: the proxy knows who sits there now
        account = users.named_by_proxy(name, current_app.config["AUTH_DEFAULT_ROLE"])
        return None if account is None else _page_user(account, has_password=False)
    user: Any = current_user
    if user.is_authenticated:
        return _page_user(user.account, has_password=True)
    if is_required():
        return None
    actor = auth.anonymous_actor()
    return PageUser(actor.name, Role.ADMIN, actor)


def _page_user(account: Account, *, has_password: bool) -> PageUser:
    actor = Actor(users.actor_name(account.name), auth.address(), account.job_id_prefix)
    return PageUser(account.name, account.role, actor, has_password)


def _named_by_proxy() -> str | None:
    """The user whom a trusted proxy names in the current request; None: there is no such proxy, or it names nobody."""
    header = current_app.config["AUTH_HEADER"]
    if header is None or not auth.is_by_trusted_proxy():
        return None
    # WSGI hands headers on as Latin-1, and proxies send UTF-8.
    return request.headers.get(header, "").encode("latin-1").decode("utf-8", "replace").strip() or None


def _refuse_user_of_proxy() -> None:
    """Refuse a user whom a trusted proxy names, but who may not use this server. A login here would not help."""
    name = _named_by_proxy()
    if name is not None:
        raise TokenLacksScope(f"the user {name!r} is unknown here or disabled; ask an administrator of this server")


def start_session(account: Account) -> None:
    """Log a user in, whose password was checked."""
    session.clear()  # nothing of an earlier cookie survives, so a planted session is useless
    session.permanent = True
    login_user(_SessionUser(account, int(time.time())))
    g.pop("page_user", None)


def redirect_to_login() -> ResponseReturnValue:
    """Send the browser to the login page, and from there back to this page, or to the page of the form that it sent."""
    if request.method == "GET":
        return redirect(url_for("admin.login", next=request.full_path.rstrip("?")))
    flash("Your session has ended, so nothing was done. Log in, and send the form again.", "error")
    return redirect(url_for("admin.login", next=_page_of_form()))


def _page_of_form() -> str | None:
    """The page of this server that sent the form, as far as the browser says it."""
    try:
        parts = urlsplit(request.referrer or "")
    except ValueError:  # not an address
        return None
    if parts.netloc != request.host or not parts.path.startswith(request.script_root):
        return None
    return parts.path.removeprefix(request.script_root) + (f"?{parts.query}" if parts.query else "")


def _own_page(target: str | None) -> str:
    """The address to open after a login: the target if it is a page of this server, otherwise the overview."""
    home = url_for("admin.overview")
    if not target:
        return home
    try:
        parts = urlsplit(target)
    except ValueError:  # not an address, such as one with an open bracket
        return home
    is_own = not parts.scheme and not parts.netloc and parts.path.startswith("/admin/")
    if not is_own or "\\" in target or not target.isprintable():
        return home
    return f"{request.script_root}{target}"
