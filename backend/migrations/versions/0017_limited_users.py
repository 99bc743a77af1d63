"""Users limited to the jobs of a prefix.

Revision ID: 0017
Revises: 0016
"""

from importlib import import_module

import sqlalchemy as sa
from alembic import op
from flask import current_app

ExactString = import_module(".database.models", current_app.import_name).ExactString

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("users", sa.Column("job_id_prefix", ExactString(255)))


def downgrade() -> None:
    op.drop_column("users", "job_id_prefix")
