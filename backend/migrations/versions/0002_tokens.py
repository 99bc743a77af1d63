"""Access tokens.

Revision ID: 0002
Revises: 0001
"""

from importlib import import_module

import sqlalchemy as sa
from alembic import op
from flask import current_app

_models = import_module(".database.models", current_app.import_name)
MYSQL_OPTIONS = _models.MYSQL_OPTIONS
ExactString = _models.ExactString
Utc = _models.Utc

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "tokens",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("label", ExactString(255), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False, unique=True),
        sa.Column("scope", sa.String(16), nullable=False),
        sa.Column("created_at", Utc, nullable=False),
        sa.Column("expires_at", Utc),
        sa.Column("revoked_at", Utc),
        **MYSQL_OPTIONS,
    )


def downgrade() -> None:
    op.drop_table("tokens")
