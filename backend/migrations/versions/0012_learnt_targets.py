"""The targets that jobs learn from their first runs.

Revision ID: 0012
Revises: 0011
"""

from importlib import import_module

import sqlalchemy as sa
from alembic import op
from flask import current_app

_models = import_module(".database.models", current_app.import_name)
LongText = _models.LongText

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("targets", LongText))


def downgrade() -> None:
    op.drop_column("jobs", "targets")
