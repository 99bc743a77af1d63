"""Stored summaries of ended trials, and an index to find the other trials.

Revision ID: 0004
Revises: 0003
"""

from importlib import import_module

import sqlalchemy as sa
from alembic import op
from flask import current_app

_models = import_module(".database.models", current_app.import_name)
MYSQL_OPTIONS = _models.MYSQL_OPTIONS
LongText = _models.LongText

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "beliefs",
        sa.Column("job", sa.Integer(), sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("exploration", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("told", LongText, nullable=False),
        **MYSQL_OPTIONS,
    )
    op.create_index("ix_trials_progress", "trials", ["job", "status", "exploration", "ended_revision", "batch_size", "epochs"])


def downgrade() -> None:
    op.drop_index("ix_trials_progress", "trials")
    op.drop_table("beliefs")
