"""Rows of access tokens, users and secrets.

The rules for tokens and users live in `backend.usecases.tokens` and `backend.usecases.users`.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import event, exists, or_, select
from sqlalchemy.orm import Session

from .models import Secret, Token, User, utc_now

_CHANGED = "accounts changed"
_changes = 0


def changes() -> int:
    """Return a number that rises whenever this process commits a change of a token or a user."""
    return _changes


@event.listens_for(Session, "after_flush")
def _notice_change(session: Session, _context: Any) -> None:
    if any(isinstance(row, Token | User) for row in (*session.new, *session.dirty, *session.deleted)):
        session.info[_CHANGED] = True


@event.listens_for(Session, "after_commit")
def _count_change(session: Session) -> None:
    global _changes
    if session.info.pop(_CHANGED, False):
        _changes += 1


def add_token(session: Session, token: Token) -> None:
    """Add a token."""
    session.add(token)


def tokens_with_label(session: Session, label: str) -> Sequence[Token]:
    """Return the tokens with a label that are not revoked."""
    return session.scalars(select(Token).where(Token.label == label, Token.revoked_at.is_(None))).all()


def all_tokens(session: Session) -> Sequence[Token]:
    """Return all tokens, oldest first."""
    return session.scalars(select(Token).order_by(Token.id)).all()


def token_with_hash(session: Session, token_hash: str) -> tuple[Token, datetime] | None:
    """Return the token with a hash, and the database's time; None if there is no such token."""
    row = session.execute(select(Token, utc_now()).where(Token.hash == token_hash)).one_or_none()
    return None if row is None else (row[0], row[1])


def anyone_registered(session: Session) -> bool:
    """Whether a token or a user exists, revoked and disabled ones included."""
    return bool(
        session.scalar(select(or_(exists().where(Token.id.is_not(None)), exists().where(User.id.is_not(None)))))
    )


def add_user(session: Session, user: User) -> None:
    """Add a user."""
    session.add(user)


def find_user(session: Session, name: str) -> User | None:
    """Return the user with a name."""
    return session.scalars(select(User).where(User.name == name)).one_or_none()


def all_users(session: Session) -> Sequence[User]:
    """Return all users, by name."""
    return session.scalars(select(User).order_by(User.name)).all()


def any_user(session: Session) -> bool:
    """Whether a user exists, disabled or not."""
    return bool(session.scalar(select(exists().where(User.id.is_not(None)))))


def get_secret(session: Session, name: str) -> str | None:
    """Return a secret that all replicas share; None if there is no such secret."""
    row = session.get(Secret, name)
    return None if row is None else row.value


def lock_secret(session: Session, name: str) -> str:
    """Lock a secret that exists, and return it. The lock lasts until the transaction ends."""
    return session.get_one(Secret, name, with_for_update=True).value


def add_secret(session: Session, name: str, value: str) -> None:
    """Add a secret. An IntegrityError means that another process added it first."""
    session.add(Secret(name=name, value=value))
