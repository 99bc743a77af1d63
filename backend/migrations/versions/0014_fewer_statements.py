"""The time before which no lease of a job can have expired, so that most calls look for none.

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
    op.add_column("jobs", sa.Column("oldest_seen_at", UTC))


def downgrade() -> None:
    op.drop_column("jobs", "oldest_seen_at")
