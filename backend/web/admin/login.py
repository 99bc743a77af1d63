"""Who uses the admin page: a user that has logged in, or, as long as there is nobody to log in, the own machine."""

import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from flask import Response, g, redirect, request, session, url_for
from flask_login import LoginManager, UserMixin, current_user, login_user, logout_user

from backend.errors import TokenLacksScope
from backend.usecases import users
from backend.usecases.audit import Actor
from backend.usecases.users import Account, Role
from backend.web import auth

SESSION_S = 12 * 3600
"""A session is over so long after its login."""

manager = LoginManager()


@dataclass(frozen=True, slots=True)
class Person:
    """Who is asking, and what they may do."""

    name: str
    role: Role
    actor: Actor

    def may(self, role: str) -> bool:
        """Whether they may do what needs this role."""
        return self.role.covers(Role(role))


class _SessionUser(UserMixin):
    def __init__(self, account: Account, began_s: int) -> None:
        self.account, self.began_s = account, began_s

    def get_id(self) -> str:
        return f"{self.began_s}:{self.account.sessions}:{self.account.name}"


@manager.user_loader  # type: ignore[untyped-decorator]
def _load(stored: str) -> _SessionUser | None:
    # The cookie has an age too, but every message shown and every form makes it anew.
    began, _, rest = stored.partition(":")
    sessions, _, name = rest.partition(":")
    if not (began.isdecimal() and sessions.isdecimal()) or int(began) + SESSION_S < time.time():
        return None
    account = users.in_session(name, int(sessions))
    return None if account is None else _SessionUser(account, int(began))


def current() -> Person | None:
    """Who is asking; None: somebody who must log in first."""
    if "person" not in g:
        g.person = _find()
    person: Person | None = g.person
    return person


def is_needed() -> bool:
    """Whether one must log in: not as long as there are neither users nor tokens, and the server's own machine asks."""
    return auth.is_guarded() or not auth.is_open_to_caller()


def need(role: Role) -> Person:
    """Who is asking.

    Raises:
        TokenLacksScope: their role does not suffice.
    """
    person = current()
    if person is None or not person.may(role):
        raise TokenLacksScope(f"this needs the role {role}; ask an administrator of this server")
    return person


def enter(account: Account) -> None:
    """Begin a session, in which nothing of what was in the cookie before is kept."""
    session.clear()
    session.permanent = True
    login_user(_SessionUser(account, int(time.time())))
    g.pop("person", None)


def leave() -> None:
    """End all sessions of who is asking."""
    person = current()
    if person is not None:
        users.log_out(person.name, person.actor)
    logout_user()
    session.clear()
    g.pop("person", None)


def to_login() -> Response:
    """Send a browser to the login, and back to where it is afterwards."""
    asked = request.full_path.rstrip("?") if request.method == "GET" else None
    return redirect(url_for("login.index", next=asked))  # type: ignore[return-value]


def back(asked: str | None) -> str:
    """Where to go after a login: to the page that was asked for if it is one of ours, else to the overview."""
    home = url_for("admin.index")
    if not asked:
        return home
    parts = urlsplit(asked)
    if parts.scheme or parts.netloc or not parts.path.startswith("/admin/") or "\\" in asked or not asked.isprintable():
        return home
    return f"{request.script_root}{asked}"


def _find() -> Person | None:
    user: Any = current_user
    if user.is_authenticated:
        account: Account = user.account
        return Person(account.name, account.role, Actor(users.actor_name(account.name), auth.address()))
    if is_needed():
        return None
    actor = auth.nobody()
    return Person(actor.name, Role.ADMIN, actor)
