"""Jobs, trials and reports.

Revision ID: 0001
Revises:
"""

from importlib import import_module

import sqlalchemy as sa
from alembic import op
from flask import current_app

_models = import_module(".database.models", current_app.import_name)
MYSQL_OPTIONS = _models.MYSQL_OPTIONS
ExactString = _models.ExactString
Utc = _models.Utc

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("job_id", ExactString(255), nullable=False, unique=True),
        sa.Column("spec", sa.Text(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("rng_position", sa.Text(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("exploration", sa.Integer(), nullable=False),
        sa.Column("created_at", Utc, nullable=False, index=True),
        **MYSQL_OPTIONS,
    )
    op.create_table(
        "trials",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("job", sa.Integer(), sa.ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("run_id", ExactString(64)),
        sa.Column("exploration", sa.Integer(), nullable=False),
        sa.Column("batch_size", sa.Integer(), nullable=False),
        sa.Column("type", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("outcome_code", sa.String(16)),
        sa.Column("outcome", sa.Text()),
        sa.Column("converged", sa.Boolean()),
        sa.Column("energy_j", sa.Double(), nullable=False),
        sa.Column("time_s", sa.Double(), nullable=False),
        sa.Column("epochs", sa.Integer(), nullable=False),
        sa.Column("energy_source", sa.String(16)),
        sa.Column("started_revision", sa.BigInteger(), nullable=False),
        sa.Column("ended_revision", sa.BigInteger()),
        sa.Column("started_at", Utc, nullable=False),
        sa.Column("last_seen_at", Utc, nullable=False),
        sa.Column("ended_at", Utc),
        sa.UniqueConstraint("job", "number"),
        sa.UniqueConstraint("job", "run_id"),
        **MYSQL_OPTIONS,
    )
    op.create_table(
        "reports",
        sa.Column("trial", sa.Integer(), sa.ForeignKey("trials.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("number", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("metric", sa.Double()),
        sa.Column("energy_j", sa.Double(), nullable=False),
        sa.Column("time_s", sa.Double(), nullable=False),
        sa.Column("code", sa.String(16), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("expired_revision", sa.BigInteger()),
        sa.Column("received_at", Utc, nullable=False),
        **MYSQL_OPTIONS,
    )


def downgrade() -> None:
    op.drop_table("reports")
    op.drop_table("trials")
    op.drop_table("jobs")
