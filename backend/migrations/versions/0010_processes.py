"""The process of a trial.

Revision ID: 0010
Revises: 0009
"""

import sqlalchemy as sa
from alembic import op

from backend.database.models import ExactString

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("trials", sa.Column("process", ExactString(255)))


def downgrade() -> None:
    op.drop_column("trials", "process")
