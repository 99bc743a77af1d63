"""Access tokens: made once, shown once, kept as a hash. Who may do what with one is in `auth.py`."""

import hashlib
import secrets
from datetime import datetime, timedelta
from enum import StrEnum

from sqlalchemy import exists, select

from backend.errors import UnknownToken
from backend.models import Token, utc_now
from backend.transactions import Session, reading, transaction

PREFIX = "bso_"
"""What every token starts with, so that secret scanners can find a leaked one."""


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


@transaction
def create(session: Session, label: str, scope: Scope, valid_days: float | None) -> str:
    """Make a token and return it; it cannot be shown again.

    The label says what it is for, and is the name to revoke it by. It expires after `valid_days`, or never.
    """
    token = PREFIX + secrets.token_urlsafe(32)
    at = session.scalars(select(utc_now())).one()
    session.add(
        Token(
            label=label,
            hash=_hash(token),
            scope=scope,
            created_at=at,
            expires_at=None if valid_days is None else at + timedelta(days=valid_days),
        )
    )
    return token


@transaction
def revoke(session: Session, label: str) -> None:
    """Revoke every token of a label for good.

    Raises:
        UnknownToken: no token that is still valid has this label.
    """
    tokens = session.scalars(select(Token).where(Token.label == label, Token.revoked_at.is_(None))).all()
    if not tokens:
        raise UnknownToken(f"no token that could be revoked is labelled {label!r}")
    at = session.scalars(select(utc_now())).one()
    for token in tokens:
        token.revoked_at = at


@reading
def list_all(session: Session) -> list[tuple[str, Scope, datetime, datetime | None, datetime | None]]:
    """Every token: label, scope, and when it was made, expires, was revoked (UTC)."""
    return [
        (token.label, Scope(token.scope), token.created_at, token.expires_at, token.revoked_at)
        for token in session.scalars(select(Token).order_by(Token.id))
    ]


@reading
def scope_of(session: Session, token: str) -> Scope | None:
    """What a token may do; None if it is unknown, expired or revoked.

    Looked up by its hash, so how long that takes tells nothing about how much of a guess is right.
    """
    found = session.execute(
        select(Token.scope, Token.expires_at, Token.revoked_at, utc_now()).where(Token.hash == _hash(token))
    ).one_or_none()
    if found is None:
        return None
    scope, expires_at, revoked_at, at = found
    if revoked_at is not None or (expires_at is not None and expires_at <= at):
        return None
    return Scope(scope)


@reading
def any_exist(session: Session) -> bool:
    """Whether a token was ever made; from then on, every call needs one."""
    return bool(session.scalar(select(exists().where(Token.id.is_not(None)))))


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()  # 256 random bits need no slow hash
