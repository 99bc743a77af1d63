"""The people who may use the admin page: their passwords, kept as hashes, and what they may do."""

import hmac
import secrets
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import lru_cache

from werkzeug.security import check_password_hash, generate_password_hash

from backend.database import accounts, audit_log, store
from backend.database.accounts import User
from backend.database.transactions import Session, read_only, transaction
from backend.errors import TooManyAttempts, UnknownUser, UnusableName, UnusablePassword, UserExists
from backend.usecases import audit
from backend.usecases.audit import Action, Actor
from lightning_bso.wire import MAX_ID_LENGTH

SHORTEST_PASSWORD, LONGEST_PASSWORD = 12, 1024
WINDOW_S = 15 * 60.0
"""Attempts to log in that failed are counted for this long."""
MOST_FAILED_PER_ACCOUNT, MOST_FAILED_PER_ADDRESS = 10, 30
SESSION_KEY = "session key"
_LOGIN_ACTIONS = (Action.TRY_LOGIN, Action.LOG_IN, Action.REFUSE_LOGIN)


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
    if accounts.user_named(session, name) is not None:
        raise UserExists(f"there is a user {name!r} already; change it with: python -m backend user change {name}")
    user = User(name=name, password_hash=hashed, role=role, created_at=store.now(session))
    accounts.add_user(session, user)
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
    user = accounts.user_named(session, name)
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
        user.disabled_at = store.now(session) if disabled else None
        changes.append("disabled" if disabled else "enabled")
    user.sessions += 1
    audit.record(session, by, Action.CHANGE_USER, detail=f"{name}: {', '.join(changes)}")


@read_only
def list_all(session: Session) -> list[Account]:
    """Every user, by name."""
    return [_account(user) for user in accounts.all_users(session)]


@read_only
def any_exist(session: Session) -> bool:
    """Whether a user was ever made; from then on, the admin page needs a login."""
    return accounts.any_user(session)


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
    user = accounts.user_named(session, name)
    if user is not None:
        user.sessions += 1
        audit.record(session, by, Action.LOG_OUT)


@read_only
def in_session(session: Session, name: str, sessions: int) -> Account | None:
    """The user of a session; None if the session is over."""
    user = accounts.user_named(session, name)
    if user is None or user.disabled_at is not None or user.sessions != sessions:
        return None
    return _account(user)


@transaction
def session_key(session: Session) -> str:
    """The key that sessions are signed with, the same on all replicas; made at the first call."""
    key = accounts.get_secret(session, SESSION_KEY)
    if key is None:
        key = secrets.token_urlsafe(48)
        accounts.add_secret(session, SESSION_KEY, key)
    return key


def actor_name(name: str) -> str:
    """How a user is called in the audit log."""
    return f"user {name}"


@transaction
def _begin_attempt(session: Session, name: str, address: str) -> bool:
    """Write an attempt down unless too many before it have failed. Returns whether it may go on."""
    # One at a time, else those at once would not see each other.
    key = accounts.lock_secret(session, SESSION_KEY)
    known = accounts.user_named(session, name) is not None
    # What is no user's name may be somebody's password, typed in the wrong field; who lacks the key cannot find it.
    code = hmac.digest(key.encode(), name.encode(), "sha256").hex()[:12]
    actor = actor_name(name) if known else f"unknown user {code}"
    by = Actor(actor, address)
    for count, whose, most in (
        (audit_log.count_by_actor, actor, MOST_FAILED_PER_ACCOUNT),
        (audit_log.count_by_address, address, MOST_FAILED_PER_ADDRESS),
    ):
        done = count(session, whose, _LOGIN_ACTIONS, WINDOW_S)
        if done[Action.TRY_LOGIN] - done[Action.LOG_IN] >= most:
            if not done[Action.REFUSE_LOGIN]:  # once is enough: else whoever keeps trying would fill the log
                audit.record(session, by, Action.REFUSE_LOGIN, detail=f"{most} attempts have failed")
            return False
    audit.record(session, by, Action.TRY_LOGIN)
    return True


@read_only
def _usable(session: Session, name: str) -> User | None:
    user = accounts.user_named(session, name)
    return user if user is not None and user.disabled_at is None else None


@transaction
def _entered(session: Session, by: Actor) -> None:
    audit.record(session, by, Action.LOG_IN)


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
