"""Results of probes of batch sizes.

Revision ID: 0005
Revises: 0004
"""

from importlib import import_module

import sqlalchemy as sa
from alembic import op
from flask import current_app

_models = import_module(".database.models", current_app.import_name)
LongText = _models.LongText

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("probes", LongText))


def downgrade() -> None:
    op.drop_column("jobs", "probes")
