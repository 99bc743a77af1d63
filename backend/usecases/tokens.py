"""Access tokens: create, list, revoke and identify them. A token is shown once and stored as a hash.

No HTTP lives here: `backend.web.auth` checks the token of a call.
"""

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from lightning_bso.quantities import count
from lightning_bso.wire import MAX_ID_LENGTH

from .. import COMMAND
from ..database import accounts, store
from ..database.models import Token
from ..database.transactions import Session, read_only, session_transaction
from ..errors import InvalidField, LabelTaken, TokenLacksScope, UnknownToken
from . import audit, users
from .audit import COMMAND_LINE, Action, Actor
from .users import Role

PREFIX = "bso_"
"""Start of every token, so that secret scanners can find a leaked token."""
MAX_VALID_DAYS = 3650


class Scope(StrEnum):
    """The permissions of a token. Each scope includes the scopes before it."""

    READ = "read"
    """Read jobs and trials."""
    RUN = "run"
    """Register jobs, ask and report: the calls of a training."""
    ADMIN = "admin"
    """Reset and delete jobs, read the audit log."""

    def covers(self, required: "Scope") -> bool:
        """Whether this scope includes the required scope."""
        order = list(Scope)
        return order.index(self) >= order.index(required)


@dataclass(frozen=True, slots=True)
class TokenInfo:
    """The stored facts about a token, without its secret. Times are UTC."""

    label: str
    scope: Scope
    job_id_prefix: str | None
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    expired: bool


@session_transaction
def create(
    session: Session,
    label: str,
    scope: Scope,
    *,
    valid_days: float | None = None,
    job_id_prefix: str | None = None,
    by: Actor = COMMAND_LINE,
    first_user: tuple[str, str] | None = None,
) -> str:
    """Create a token and return it. The token cannot be shown again.

    Args:
        session: the transaction.
        label: what the token is for. The token is revoked by this label.
        scope: the permissions of the token.
        valid_days: days until the token expires, 1 to `MAX_VALID_DAYS`; None: never.
        job_id_prefix: limits the token to jobs whose ids start with this; None: all jobs.
        by: the actor that creates the token.
        first_user: name and password of an administrator to create with it, so that nobody is locked out of the page.

    Raises:
        ServiceError: the user cannot be created, see `users.add`.
        InvalidField: the label or the prefix is blank, too long or not printable, or `valid_days` is out of range.
        LabelTaken: a valid token has this label. Revoking the label would revoke both.
        TokenLacksScope: the actor is limited to some jobs, and the token is not limited to those.
    """
    if not 0 < len(label) <= MAX_ID_LENGTH or not label.isprintable() or label != label.strip():
        raise InvalidField(
            "label", f"it must have 1 to {MAX_ID_LENGTH} printable characters, and no space at either end"
        )
    audit.check_prefix(job_id_prefix)
    if not by.may_grant(job_id_prefix):
        raise TokenLacksScope(
            f"you are limited to jobs whose ids start with {by.job_id_prefix!r}, so the prefix of a token that you "
            "create must start with it too"
        )
    if valid_days is not None and not 1 <= valid_days <= MAX_VALID_DAYS:
        raise InvalidField(
            "valid days", f"they must be 1 to {MAX_VALID_DAYS}; for a token that never expires leave them out"
        )
    at = store.now(session)
    if any(not _has_expired(token, at) for token in accounts.tokens_with_label(session, label)):
        raise LabelTaken(f"a token {label!r} already exists; revoke it, or choose another label")
    secret = PREFIX + secrets.token_urlsafe(32)
    accounts.add_token(
        session,
        Token(
            label=label,
            hash=hash_of(secret),
            scope=scope,
            job_id_prefix=job_id_prefix,
            created_at=at,
            expires_at=None if valid_days is None else at + timedelta(days=valid_days),
        ),
    )
    limited = "" if job_id_prefix is None else f", jobs beginning with {job_id_prefix}"
    expires = "never expires" if valid_days is None else f"expires after {count(valid_days, 'day')}"
    if first_user is not None:
        users.add(session, *first_user, Role.ADMIN, by)
    audit.record(session.connection(), by, Action.CREATE_TOKEN, detail=f"{label}: {scope}{limited}, {expires}")
    return secret


@session_transaction
def revoke(session: Session, label: str, by: Actor = COMMAND_LINE) -> None:
    """Revoke every token with a label. A revoked token stays revoked.

    Raises:
        UnknownToken: every token with this label is revoked already, or there is none that the actor may see.
    """
    tokens = [token for token in accounts.tokens_with_label(session, label) if by.may_grant(token.job_id_prefix)]
    if not tokens:
        raise UnknownToken(f"there is no token {label!r} to revoke; {COMMAND} token list shows the tokens")
    at = store.now(session)
    for token in tokens:
        token.revoked_at = at
    audit.record(session.connection(), by, Action.REVOKE_TOKEN, detail=label)


@read_only
def list_all(session: Session, by: Actor = COMMAND_LINE) -> list[TokenInfo]:
    """Return all tokens that an actor may create and revoke, oldest first."""
    at = store.now(session)
    return [_info(token, at) for token in accounts.all_tokens(session) if by.may_grant(token.job_id_prefix)]


@read_only
def identify(session: Session, token: str) -> TokenInfo | None:
    """Return the facts about a token; None if the token is unknown, expired or revoked.

    The token is looked up by its hash, so the time taken does not reveal how much of a guess is right.
    """
    match = accounts.token_with_hash(session, hash_of(token))
    if match is None:
        return None
    row, at = match
    return None if row.revoked_at is not None or _has_expired(row, at) else _info(row, at)


@read_only
def anyone_registered(session: Session) -> bool:
    """Whether a token or a user was ever created. From then on every call needs a token or a login."""
    return accounts.anyone_registered(session)


def _has_expired(token: Token, at: datetime) -> bool:
    return token.expires_at is not None and token.expires_at <= at


def _info(token: Token, at: datetime) -> TokenInfo:
    return TokenInfo(
        token.label,
        Scope(token.scope),
        token.job_id_prefix,
        token.created_at,
        token.expires_at,
        token.revoked_at,
        _has_expired(token, at),
    )


def hash_of(token: str) -> str:
    """Return the hash that is stored of a token."""
    return hashlib.sha256(token.encode()).hexdigest()  # a fast hash suffices for 256 random bits
