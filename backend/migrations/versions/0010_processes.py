"""The process of a trial.

Revision ID: 0010
Revises: 0009
"""

from importlib import import_module

import sqlalchemy as sa
from alembic import op
from flask import current_app

_models = import_module(".database.models", current_app.import_name)
ExactString = _models.ExactString

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("trials", sa.Column("process", ExactString(255)))


def downgrade() -> None:
    op.drop_column("trials", "process")
