"""The users of the admin page: create, change and list them, log them in and out. Passwords are stored as hashes.

No HTTP lives here: `backend.web.admin.login` holds the session of a browser.
"""

import hmac
import secrets
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import lru_cache

from werkzeug.security import check_password_hash, generate_password_hash

from lightning_bso.wire import MAX_ID_LENGTH

from .. import COMMAND
from ..database import accounts, audit_log, store
from ..database.models import User
from ..database.transactions import Session, read_only, session_transaction
from ..errors import TokenLacksScope, TooManyAttempts, UnknownUser, UnusableName, UnusablePassword, UserExists
from . import audit
from .audit import Action, Actor

MIN_PASSWORD_LENGTH, MAX_PASSWORD_LENGTH = 12, 1024
WINDOW_S = 15 * 60.0
"""A failed login counts for this long."""
MAX_FAILED_LOGINS_PER_ACCOUNT, MAX_FAILED_LOGINS_PER_ADDRESS = 10, 30
SESSION_KEY = "session key"
HASH_METHOD = "scrypt:32768:8:1"
"""How new passwords are hashed. A stored hash names its own method."""
_LOGIN_ACTIONS = (Action.TRY_LOGIN, Action.LOG_IN, Action.REFUSE_LOGIN)


class Role(StrEnum):
    """The permissions of a user. Each role includes the roles before it."""

    VIEWER = "viewer"
    """Read jobs and trials."""
    OPERATOR = "operator"
    """Write notes and tags; end trials; pause, resume and reset jobs; register a job like another one."""
    ADMIN = "admin"
    """Delete jobs, create and revoke tokens, manage users, read the audit log."""

    def covers(self, required: "Role") -> bool:
        """Whether this role includes the required role."""
        order = list(Role)
        return order.index(self) >= order.index(required)


@dataclass(frozen=True, slots=True)
class Account:
    """The stored facts about a user, without the password. Times are UTC."""

    name: str
    role: Role
    job_id_prefix: str | None
    sessions: int
    created_at: datetime
    disabled_at: datetime | None


def add(
    session: Session, name: str, password: str | None, role: Role, by: Actor, *, job_id_prefix: str | None = None
) -> None:
    """Create a user in a transaction that does more.

    Args:
        session: the transaction.
        name: the user's name.
        password: the user's password; None: the user can log in at a trusted proxy only.
        role: the permissions of the user.
        by: the actor that creates the user.
        job_id_prefix: limits the user to jobs whose ids start with this; None: all jobs.

    Raises:
        UnusableName: the name is empty, too long or not printable, or has a space at either end.
        UnusablePassword: the password is too short or too long.
        InvalidField: the prefix is blank, too long or not printable.
        UserExists: the name is taken.
        TokenLacksScope: the actor is limited to some jobs.
    """
    _check_manager(by)
    if not _is_usable(name):
        raise UnusableName(
            f"a user's name must have 1 to {MAX_ID_LENGTH} printable characters, and no space at either end"
        )
    audit.check_prefix(job_id_prefix)
    hashed = _hash(secrets.token_urlsafe(48) if password is None else password)
    if accounts.find_user(session, name) is not None:
        raise UserExists(f"a user {name!r} already exists; change that one, or choose another name")
    user = User(name=name, password_hash=hashed, role=role, job_id_prefix=job_id_prefix, created_at=store.now(session))
    accounts.add_user(session, user)
    audit.record(session.connection(), by, Action.CREATE_USER, detail=f"{name}, {role}, {audit.jobs_of(job_id_prefix)}")


create = session_transaction(add)
"""Do the same in a transaction of its own."""


@session_transaction
def change(
    session: Session,
    name: str,
    by: Actor,
    *,
    password: str | None = None,
    role: Role | None = None,
    job_id_prefix: str | None = None,
    all_jobs: bool = False,
    disabled: bool | None = None,
) -> None:
    """Change a user, and end the user's sessions.

    Users cannot change what they themselves may do, so that a page without an administrator is no slip of the hand.

    Args:
        session: the transaction.
        name: the user.
        by: the actor that changes the user.
        password: the new password; None: unchanged.
        role: the new role; None: unchanged.
        job_id_prefix: limits the user to jobs whose ids start with this; None: unchanged.
        all_jobs: whether to lift the limit to some jobs.
        disabled: whether the user may no longer log in; None: unchanged.

    Raises:
        UnknownUser: there is no such user.
        UnusablePassword: the password is too short or too long.
        InvalidField: the prefix is blank, too long or not printable.
        TokenLacksScope: the actor is limited to some jobs, or is the user itself and changes more than the password.
    """
    _check_manager(by)
    audit.check_prefix(job_id_prefix)
    user = accounts.find_user(session, name)
    if user is None:
        raise UnknownUser(f"there is no user {name!r}; {COMMAND} user list shows the users")
    rights = (role, job_id_prefix, disabled, all_jobs or None)
    if by.name == actor_name(name) and any(right is not None for right in rights):
        raise TokenLacksScope("another administrator must change what you yourself may do")
    changes = []
    if password is not None:
        user.password_hash = _hash(password)
        changes.append("password")
    if role is not None:
        user.role = role
        changes.append(role)
    if job_id_prefix is not None or all_jobs:
        user.job_id_prefix = None if all_jobs else job_id_prefix
        changes.append(audit.jobs_of(user.job_id_prefix))
    if disabled is not None:
        user.disabled_at = store.now(session) if disabled else None
        changes.append("disabled" if disabled else "enabled")
    user.sessions += 1
    audit.record(session.connection(), by, Action.CHANGE_USER, detail=f"{name}: {', '.join(changes)}")


def change_own_password(name: str, old: str, new: str, address: str) -> Account | None:
    """Let a user change the own password. All sessions of the user end.

    The old password is checked like that of a login, and a wrong one counts as a failed login.

    Returns:
        The user after the change; None: the old password is wrong.

    Raises:
        UnusablePassword: the new password is too short or too long.
        TooManyAttempts: too many logins of this account or from this address have failed.
    """
    hashed = _hash(new)
    if log_in(name, old, address) is None:
        return None
    return _set_password(name, hashed, Actor(actor_name(name), address))


@session_transaction
def _set_password(session: Session, name: str, hashed: str, by: Actor) -> Account | None:
    user = accounts.find_user(session, name)
    if user is None:
        return None
    user.password_hash = hashed
    user.sessions += 1
    audit.record(session.connection(), by, Action.CHANGE_USER, detail=f"{name}: own password")
    return _account(user)


@read_only
def list_all(session: Session) -> list[Account]:
    """Return all users, by name."""
    return [_account(user) for user in accounts.all_users(session)]


@read_only
def any_exist(session: Session) -> bool:
    """Whether a user was ever created. From then on the admin page needs a login."""
    return accounts.any_user(session)


def log_in(name: str, password: str, address: str) -> Account | None:
    """Check a name and password.

    The attempt is recorded, and counts as failed, before the password is checked. Otherwise many simultaneous attempts
    could exceed the limit. A successful login is recorded too.

    Returns:
        The user; None if the name or the password is wrong, or the user is disabled.

    Raises:
        TooManyAttempts: too many logins of this account or from this address have failed. This attempt does not count.
    """
    if not _begin_attempt(name, address):
        raise TooManyAttempts(f"too many failed logins; wait {WINDOW_S / 60:.0f} minutes")
    user = _enabled_user(name)
    if not check_password_hash(_dummy_hash() if user is None else user.password_hash, password) or user is None:
        return None
    _record_login(Actor(actor_name(name), address))
    return _account(user)


@read_only
def named_by_proxy(session: Session, name: str, default_role: Role | None) -> Account | None:
    """Return the user whom a trusted proxy has logged in; None: the user is disabled or unknown, so it is refused.

    Args:
        session: the transaction.
        name: the user, as the proxy names it.
        default_role: role of a user that is unknown here in any spelling, who sees all jobs; None: such a user is
            refused.
    """
    user = accounts.find_user(session, name)
    if user is not None:
        return None if user.disabled_at is not None else _account(user)
    if default_role is None or not _is_usable(name) or "," in name:  # a comma joins several headers
        return None
    known = (other.name.casefold() for other in accounts.all_users(session))
    if name.casefold() in known:  # else another spelling would lift the limits of a user
        return None
    return Account(name, default_role, None, 0, store.now(session), None)


@session_transaction
def log_out(session: Session, name: str, by: Actor) -> None:
    """End all sessions of a user."""
    user = accounts.find_user(session, name)
    if user is not None:
        user.sessions += 1
        audit.record(session.connection(), by, Action.LOG_OUT)


@read_only
def in_session(session: Session, name: str, sessions: int) -> Account | None:
    """Return the user of a session; None if the session has ended.

    Args:
        session: the transaction.
        name: the user.
        sessions: value of `Account.sessions` at the login. Ending the sessions raises it.
    """
    user = accounts.find_user(session, name)
    if user is None or user.disabled_at is not None or user.sessions != sessions:
        return None
    return _account(user)


@session_transaction
def session_key(session: Session) -> str:
    """Return the key that signs sessions. All replicas share the key; the first call creates it."""
    key = accounts.get_secret(session, SESSION_KEY)
    if key is None:
        key = secrets.token_urlsafe(48)
        accounts.add_secret(session, SESSION_KEY, key)
    return key


def actor_name(name: str) -> str:
    """Return the name of a user in the audit log."""
    return f"user {name}"


@session_transaction
def _begin_attempt(session: Session, name: str, address: str) -> bool:
    """Record a login attempt, unless too many attempts have failed. Returns whether the attempt is allowed."""
    # Attempts are recorded one at a time; simultaneous attempts would not see each other.
    key = accounts.lock_secret(session, SESSION_KEY)
    exists = accounts.find_user(session, name) is not None
    # An unknown name may be a password typed into the wrong field. Nobody can recover it from the code without the key.
    code = hmac.digest(key.encode(), name.encode(), "sha256").hex()[:12]
    actor = actor_name(name) if exists else f"unknown user {code}"
    by = Actor(actor, address)
    for count, source, limit in (
        (audit_log.count_by_actor, actor, MAX_FAILED_LOGINS_PER_ACCOUNT),
        (audit_log.count_by_address, address, MAX_FAILED_LOGINS_PER_ADDRESS),
    ):
        counts = count(session, source, _LOGIN_ACTIONS, WINDOW_S)
        if counts[Action.TRY_LOGIN] - counts[Action.LOG_IN] >= limit:
            if not counts[Action.REFUSE_LOGIN]:  # one entry per window, so that more attempts cannot fill the log
                audit.record(session.connection(), by, Action.REFUSE_LOGIN, detail=f"{limit} attempts have failed")
            return False
    audit.record(session.connection(), by, Action.TRY_LOGIN)
    return True


@read_only
def _enabled_user(session: Session, name: str) -> User | None:
    user = accounts.find_user(session, name)
    return user if user is not None and user.disabled_at is None else None


@session_transaction
def _record_login(session: Session, by: Actor) -> None:
    audit.record(session.connection(), by, Action.LOG_IN)


def _account(user: User) -> Account:
    return Account(user.name, Role(user.role), user.job_id_prefix, user.sessions, user.created_at, user.disabled_at)


def _is_usable(name: str) -> bool:
    return 0 < len(name) <= MAX_ID_LENGTH and name.isprintable() and name == name.strip()


def _check_manager(by: Actor) -> None:
    """Check that an actor may create and change users, who may see any job."""
    if by.job_id_prefix is not None:
        raise TokenLacksScope("you are limited to some jobs; an administrator of all jobs manages the users")


def _hash(password: str) -> str:
    if not MIN_PASSWORD_LENGTH <= len(password) <= MAX_PASSWORD_LENGTH:
        raise UnusablePassword(f"a password must have {MIN_PASSWORD_LENGTH} to {MAX_PASSWORD_LENGTH} characters")
    return generate_password_hash(password, HASH_METHOD)


@lru_cache
def _dummy_hash() -> str:
    """Return a hash to check the password of an unknown user against, so that the time taken reveals nothing."""
    return generate_password_hash(secrets.token_urlsafe(), HASH_METHOD)
