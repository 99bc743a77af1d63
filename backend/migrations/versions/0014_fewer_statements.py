"""What spares most calls most of their statements: values that were read from all trials, beside the summary.

Revision ID: 0014
Revises: 0013
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

UTC = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")


def upgrade() -> None:
    op.add_column("beliefs", sa.Column("reference_cost_j", sa.String(32)))
    op.add_column("beliefs", sa.Column("energy_source", sa.String(16)))
    op.add_column("jobs", sa.Column("oldest_seen_at", UTC))


def downgrade() -> None:
    op.execute("DELETE FROM beliefs")  # a cache, whose text the program before cannot read
    op.drop_column("jobs", "oldest_seen_at")
    op.drop_column("beliefs", "energy_source")
    op.drop_column("beliefs", "reference_cost_j")
