"""The largest batch that a job's runs take on a device at a time.

Revision ID: 0013
Revises: 0012
"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("max_device_batch_size", sa.Integer()))


def downgrade() -> None:
    op.drop_column("jobs", "max_device_batch_size")
