"""Notes and tags of jobs and trials, and indexes for the lists' filters by date and status.

Revision ID: 0018
Revises: 0017
"""

from importlib import import_module

import sqlalchemy as sa
from alembic import op
from flask import current_app

_models = import_module(".database.models", current_app.import_name)
MYSQL_OPTIONS = _models.MYSQL_OPTIONS
ExactString = _models.ExactString
Utc = _models.Utc

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "notes",
        sa.Column("job", sa.Integer(), sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("trial_number", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("tags", sa.Text(), nullable=False),
        sa.Column("actor", ExactString(271), nullable=False),
        sa.Column("at", Utc, nullable=False),
        **MYSQL_OPTIONS,
    )
    op.create_index("ix_trials_started", "trials", ["started_at"])
    op.create_index("ix_trials_outcome", "trials", ["outcome_code", "started_at"])


def downgrade() -> None:
    op.drop_table("notes")  # locks the jobs before the trials, as the calls do; the other order can deadlock
    op.drop_index("ix_trials_outcome", "trials")
    op.drop_index("ix_trials_started", "trials")
