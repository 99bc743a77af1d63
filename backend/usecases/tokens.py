"""Access tokens: made once, shown once, kept as a hash. Who may do what with one is in `auth.py`."""

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from backend.database import accounts, store
from backend.database.accounts import Token
from backend.database.transactions import Session, read_only, transaction
from backend.errors import InvalidField, LabelTaken, UnknownToken
from backend.usecases import audit
from backend.usecases.audit import COMMAND_LINE, Action, Actor
from lightning_bso.wire import MAX_ID_LENGTH

PREFIX = "bso_"
"""What every token starts with, so that secret scanners can find a leaked one."""
MOST_VALID_DAYS = 3650


class Scope(StrEnum):
    """What a token may do; each may do what those before it may."""

    READ = "read"
    """Look at jobs and trials."""
    RUN = "run"
    """Register jobs, ask and report: what a training needs."""
    ADMIN = "admin"
    """Reset and delete jobs."""

    def covers(self, needed: "Scope") -> bool:
        """Whether a token of this scope may do what needs that one."""
        order = list(Scope)
        return order.index(self) >= order.index(needed)


@dataclass(frozen=True, slots=True)
class TokenInfo:
    """A token without itself. Times are UTC."""

    label: str
    scope: Scope
    job_id_prefix: str | None
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    expired: bool


@transaction
def create(
    session: Session,
    label: str,
    scope: Scope,
    *,
    valid_days: float | None = None,
    job_id_prefix: str | None = None,
    by: Actor = COMMAND_LINE,
) -> str:
    """Make a token and return it; it cannot be shown again.

    Args:
        session: the transaction.
        label: what it is for, and the name to revoke it by.
        scope: what it may do.
        valid_days: it expires after so many days, 1 to `MOST_VALID_DAYS`; None: never.
        job_id_prefix: it knows of jobs whose ids begin so alone; None: of all.
        by: who makes it.

    Raises:
        InvalidField: the label or the prefix is blank, too long, or cannot be printed; or it would be valid for too
            short or too long.
        LabelTaken: a token that is still valid has this label, and would be revoked with this one.
    """
    if not 0 < len(label) <= MAX_ID_LENGTH or not label.isprintable() or label != label.strip():
        raise InvalidField(
            "label", f"it has 1 to {MAX_ID_LENGTH} characters that can be printed, and no space at either end"
        )
    if job_id_prefix is not None:
        if not job_id_prefix.strip():  # such as a shell's variable that is not set: far from meaning all jobs
            raise InvalidField("prefix", "it is empty or blank; for a token of all jobs leave it out altogether")
        if len(job_id_prefix) > MAX_ID_LENGTH or not job_id_prefix.isprintable():
            raise InvalidField("prefix", f"it has up to {MAX_ID_LENGTH} characters that can be printed")
    if valid_days is not None and not 1 <= valid_days <= MOST_VALID_DAYS:
        raise InvalidField(
            "valid days", f"they are 1 to {MOST_VALID_DAYS}; for a token that never expires leave them out"
        )
    at = store.now(session)
    if any(not _has_expired(known, at) for known in accounts.tokens_labelled(session, label)):
        raise LabelTaken(f"there is a token {label!r} already; revoke it, or choose another label")
    token = PREFIX + secrets.token_urlsafe(32)
    accounts.add_token(
        session,
        Token(
            label=label,
            hash=_hash(token),
            scope=scope,
            job_id_prefix=job_id_prefix,
            created_at=at,
            expires_at=None if valid_days is None else at + timedelta(days=valid_days),
        ),
    )
    limited = "" if job_id_prefix is None else f", jobs beginning with {job_id_prefix}"
    expires = "never expires" if valid_days is None else f"expires after {valid_days:g} days"
    audit.record(session, by, Action.MAKE_TOKEN, detail=f"{label}: {scope}{limited}, {expires}")
    return token


@transaction
def revoke(session: Session, label: str, by: Actor = COMMAND_LINE) -> None:
    """Revoke every token of a label for good.

    Raises:
        UnknownToken: no token that is still valid has this label.
    """
    tokens = accounts.tokens_labelled(session, label)
    if not tokens:
        raise UnknownToken(f"no token that could be revoked is labelled {label!r}")
    at = store.now(session)
    for token in tokens:
        token.revoked_at = at
    audit.record(session, by, Action.REVOKE_TOKEN, detail=label)


@read_only
def list_all(session: Session) -> list[TokenInfo]:
    """Every token, in the order they were made."""
    at = store.now(session)
    return [_info(token, at) for token in accounts.all_tokens(session)]


@read_only
def identify(session: Session, token: str) -> TokenInfo | None:
    """What is known of a token; None if it is unknown, expired or revoked.

    Looked up by its hash, so how long that takes tells nothing about how much of a guess is right.
    """
    row = accounts.token_with_hash(session, _hash(token))
    if row is None:
        return None
    found, at = row
    return None if found.revoked_at is not None or _has_expired(found, at) else _info(found, at)


@read_only
def any_exist(session: Session) -> bool:
    """Whether a token was ever made; from then on, every call needs one."""
    return accounts.any_token(session)


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


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()  # 256 random bits need no slow hash
