"""The highest cost of a trial's first epoch after which its run goes on.

Revision ID: 0015
Revises: 0014
"""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("trials", sa.Column("epoch_limit_j", sa.Double()))


def downgrade() -> None:
    op.drop_column("trials", "epoch_limit_j")
