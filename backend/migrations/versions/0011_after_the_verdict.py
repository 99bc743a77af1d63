"""What a run uses after its verdict, and the best metric of a run.

Revision ID: 0011
Revises: 0010
"""

from importlib import import_module

import sqlalchemy as sa
from alembic import op
from flask import current_app

_models = import_module(".database.models", current_app.import_name)
Double = _models.Double

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("trials", sa.Column("best_metric", Double))
    op.add_column("trials", sa.Column("energy_after_j", Double, nullable=False, server_default="0"))
    op.add_column("trials", sa.Column("time_after_s", Double, nullable=False, server_default="0"))


def downgrade() -> None:
    op.drop_column("trials", "time_after_s")
    op.drop_column("trials", "energy_after_j")
    op.drop_column("trials", "best_metric")
