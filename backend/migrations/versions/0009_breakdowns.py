"""Breakdowns of a job's runs.

Revision ID: 0009
Revises: 0008
"""

from importlib import import_module

import sqlalchemy as sa
from alembic import op
from flask import current_app

_models = import_module(".database.models", current_app.import_name)
LongText = _models.LongText

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("breakdowns", LongText))


def downgrade() -> None:
    op.drop_column("jobs", "breakdowns")
