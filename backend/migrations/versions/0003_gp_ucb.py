"""Columns for the policy gp-ucb: cost bounds of trials, warm starts of jobs.

Revision ID: 0003
Revises: 0002
"""

from importlib import import_module

import sqlalchemy as sa
from alembic import op
from flask import current_app

_models = import_module(".database.models", current_app.import_name)
LongText = _models.LongText

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("warm_start", LongText))
    op.add_column("trials", sa.Column("bound_factor", sa.Double()))
    op.execute("UPDATE trials SET bound_factor = 1")


def downgrade() -> None:
    op.drop_column("trials", "bound_factor")
    op.drop_column("jobs", "warm_start")
