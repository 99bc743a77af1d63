"""Gradient accumulation of a trial.

Revision ID: 0006
Revises: 0005
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("trials", sa.Column("accumulate_grad_batches", sa.Integer, nullable=False, server_default="1"))


def downgrade() -> None:
    op.drop_column("trials", "accumulate_grad_batches")
