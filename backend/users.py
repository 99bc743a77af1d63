"""The people who may use the admin page: their passwords, kept as hashes, and what they may do."""

import hmac
import secrets
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from functools import lru_cache

from sqlalchemy import ColumnElement, exists, func, select
from werkzeug.security import check_password_hash, generate_password_hash

from backend import audit
from backend.audit import Action, Actor
from backend.errors import TooManyAttempts, UnknownUser, UnusableName, UnusablePassword, UserExists
from backend.models import AuditEntry, Secret, User, utc_now
from backend.transactions import Session, reading, transaction
from lightning_bso.wire import MAX_ID_LENGTH

SHORTEST_PASSWORD, LONGEST_PASSWORD = 12, 1024
WINDOW_S = 15 * 60.0
"""Attempts to log in that failed are counted for this long."""
MOST_FAILED_PER_ACCOUNT, MOST_FAILED_PER_ADDRESS = 10, 30
SESSION_KEY = "session key"


class Role(StrEnum):
    """What a user may do; each may do what those before it may."""

    VIEWER = "viewer"
    """Look at jobs and trials."""
    OPERATOR = "operator"
    """End trials; pause, resume and reset jobs."""
    ADMIN = "admin"
    """Delete jobs, make and revoke tokens, read the audit log."""

    def covers(self, needed: "Role") -> bool:
        """Whether a user of this role may do what needs that one."""
        order = list(Role)
        return order.index(self) >= order.index(needed)


@dataclass(frozen=True, slots=True)
class Account:
    """A user without the password."""

    name: str
    role: Role
    sessions: int
    created_at: datetime
    disabled_at: datetime | None


@transaction
def create(session: Session, name: str, password: str, role: Role, by: Actor) -> None:
    """Make a user.

    Raises:
        UnusableName: the name is empty, too long, or cannot be printed or typed.
        UnusablePassword: the password is too short or too long.
        UserExists: the name is taken.
    """
    if not 0 < len(name) <= MAX_ID_LENGTH or not name.isprintable() or name != name.strip():
        raise UnusableName(
            f"a user's name has 1 to {MAX_ID_LENGTH} characters that can be printed, and no space at either end"
        )
    hashed = _hash(password)
    if _find(session, name) is not None:
        raise UserExists(f"there is a user {name!r} already; change it with: python -m backend user change {name}")
    at = session.scalars(select(utc_now())).one()
    session.add(User(name=name, password_hash=hashed, role=role, created_at=at))
    audit.record(session, by, Action.MAKE_USER, detail=f"{name}, {role}")


@transaction
def change(
    session: Session,
    name: str,
    by: Actor,
    *,
    password: str | None = None,
    role: Role | None = None,
    disabled: bool | None = None,
) -> None:
    """Change a user, and end its sessions. What is None stays.

    Raises:
        UnknownUser: there is no such user.
        UnusablePassword: the password is too short or too long.
    """
    user = _find(session, name)
    if user is None:
        raise UnknownUser(f"there is no user {name!r}; python -m backend user list names them")
    changes = []
    if password is not None:
        user.password_hash = _hash(password)
        changes.append("password")
    if role is not None:
        user.role = role
        changes.append(role)
    if disabled is not None:
        user.disabled_at = session.scalars(select(utc_now())).one() if disabled else None
        changes.append("disabled" if disabled else "enabled")
    user.sessions += 1
    audit.record(session, by, Action.CHANGE_USER, detail=f"{name}: {', '.join(changes)}")


@reading
def list_all(session: Session) -> list[Account]:
    """Every user, by name."""
    return [_account(user) for user in session.scalars(select(User).order_by(User.name))]


@reading
def any_exist(session: Session) -> bool:
    """Whether a user was ever made; from then on, the admin page needs a login."""
    return bool(session.scalar(select(exists().where(User.id.is_not(None)))))


def log_in(name: str, password: str, address: str) -> Account | None:
    """The user of this name and password; None if there is none, without saying which of the two is wrong.

    An attempt is written down, and counts as failed, before the password is looked at, so that many at once cannot
    slip past the limit; if it succeeds, that is written down too.

    Raises:
        TooManyAttempts: too many of this account or from this address have failed. This one does not count.
    """
    if not _begin_attempt(name, address):
        raise TooManyAttempts(f"too many attempts to log in have failed; wait {WINDOW_S / 60:.0f} minutes")
    user = _usable(name)
    if not check_password_hash(_nobodys_hash() if user is None else user.password_hash, password) or user is None:
        return None
    _entered(Actor(actor_name(name), address))
    return _account(user)


@transaction
def log_out(session: Session, name: str, by: Actor) -> None:
    """End all sessions of a user."""
    user = _find(session, name)
    if user is not None:
        user.sessions += 1
        audit.record(session, by, Action.LOG_OUT)


@reading
def in_session(session: Session, name: str, sessions: int) -> Account | None:
    """The user of a session; None if the session is over."""
    user = _find(session, name)
    if user is None or user.disabled_at is not None or user.sessions != sessions:
        return None
    return _account(user)


@transaction
def session_key(session: Session) -> str:
    """The key that sessions are signed with, the same on all replicas; made at the first call."""
    row = session.get(Secret, SESSION_KEY)
    if row is None:
        row = Secret(name=SESSION_KEY, value=secrets.token_urlsafe(48))
        session.add(row)
    return row.value


def actor_name(name: str) -> str:
    """How a user is called in the audit log."""
    return f"user {name}"


@transaction
def _begin_attempt(session: Session, name: str, address: str) -> bool:
    """Write an attempt down unless too many before it have failed. Returns whether it may go on."""
    # One at a time, else those at once would not see each other.
    key = session.get_one(Secret, SESSION_KEY, with_for_update=True).value
    known = _find(session, name) is not None
    # What is no user's name may be somebody's password, typed in the wrong field; who lacks the key cannot find it.
    code = hmac.digest(key.encode(), name.encode(), "sha256").hex()[:12]
    actor = actor_name(name) if known else f"unknown user {code}"
    by = Actor(actor, address)
    for column, value, most in (
        (AuditEntry.actor, actor, MOST_FAILED_PER_ACCOUNT),
        (AuditEntry.address, address, MOST_FAILED_PER_ADDRESS),
    ):
        done = _count_logins(session, column == value)
        if done[Action.TRY_LOGIN] - done[Action.LOG_IN] >= most:
            if not done[Action.REFUSE_LOGIN]:  # once is enough: else whoever keeps trying would fill the log
                audit.record(session, by, Action.REFUSE_LOGIN, detail=f"{most} attempts have failed")
            return False
    audit.record(session, by, Action.TRY_LOGIN)
    return True


def _count_logins(session: Session, whose: ColumnElement[bool]) -> Counter[str]:
    """How often somebody has tried, succeeded and been refused lately."""
    since = session.scalars(select(utc_now())).one() - timedelta(seconds=WINDOW_S)
    actions = (Action.TRY_LOGIN, Action.LOG_IN, Action.REFUSE_LOGIN)
    lately = (whose, AuditEntry.action.in_(actions), AuditEntry.at > since)
    counted: Counter[str] = Counter()
    for action, count in session.execute(
        select(AuditEntry.action, func.count()).where(*lately).group_by(AuditEntry.action)
    ):
        counted[action] = count
    return counted


@reading
def _usable(session: Session, name: str) -> User | None:
    user = _find(session, name)
    return user if user is not None and user.disabled_at is None else None


@transaction
def _entered(session: Session, by: Actor) -> None:
    audit.record(session, by, Action.LOG_IN)


def _find(session: Session, name: str) -> User | None:
    return session.scalars(select(User).where(User.name == name)).one_or_none()


def _account(user: User) -> Account:
    return Account(user.name, Role(user.role), user.sessions, user.created_at, user.disabled_at)


def _hash(password: str) -> str:
    if not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
        raise UnusablePassword(f"a password has {SHORTEST_PASSWORD} to {LONGEST_PASSWORD} characters")
    return generate_password_hash(password)


@lru_cache
def _nobodys_hash() -> str:
    """To be checked where there is no user, so that the time taken does not tell."""
    return generate_password_hash(secrets.token_urlsafe())
