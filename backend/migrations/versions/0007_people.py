"""Users, the audit log, tokens limited to a prefix, paused jobs, and columns to search jobs by.

Revision ID: 0007
Revises: 0006
"""

import json
from importlib import import_module

import sqlalchemy as sa
from alembic import op
from flask import current_app

_models = import_module(".database.models", current_app.import_name)
MYSQL_OPTIONS = _models.MYSQL_OPTIONS
ExactString = _models.ExactString
Utc = _models.Utc

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "users",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("name", ExactString(255), nullable=False, unique=True),
        sa.Column("password_hash", sa.String(255), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("sessions", sa.Integer(), nullable=False),
        sa.Column("created_at", Utc, nullable=False),
        sa.Column("disabled_at", Utc),
        **MYSQL_OPTIONS,
    )
    op.create_table(
        "audit",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("at", Utc, nullable=False, index=True),
        sa.Column("actor", ExactString(271), nullable=False, index=True),
        sa.Column("address", sa.String(64), nullable=False),
        sa.Column("action", sa.String(32), nullable=False),
        sa.Column("job_id", ExactString(255), index=True),
        sa.Column("detail", sa.Text(), nullable=False),
        **MYSQL_OPTIONS,
    )
    op.create_index("ix_audit_action", "audit", ["action", "at"])
    op.create_table(
        "secrets",
        sa.Column("name", sa.String(32), primary_key=True),
        sa.Column("value", sa.String(255), nullable=False),
        **MYSQL_OPTIONS,
    )
    op.add_column("tokens", sa.Column("job_id_prefix", ExactString(255)))
    op.add_column("trials", sa.Column("host", ExactString(255)))
    op.create_index("ix_trials_seen", "trials", ["status", "last_seen_at"])
    op.add_column("jobs", sa.Column("paused", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("jobs", sa.Column("policy", sa.String(16), nullable=False, server_default=""))
    op.add_column("jobs", sa.Column("gpu_model", ExactString(255), nullable=False, server_default=""))
    jobs = sa.table("jobs", sa.column("id"), sa.column("spec"), sa.column("policy"), sa.column("gpu_model"))
    connection = op.get_bind()
    for id_, spec in connection.execute(sa.select(jobs.c.id, jobs.c.spec)).all():
        fields = json.loads(spec)
        values = {"policy": fields.get("policy", "zeus"), "gpu_model": fields["gpu_model"]}
        connection.execute(jobs.update().where(jobs.c.id == id_).values(**values))


def downgrade() -> None:
    for column in ("gpu_model", "policy", "paused"):
        op.drop_column("jobs", column)
    op.drop_index("ix_trials_seen", "trials")
    op.drop_column("trials", "host")
    op.drop_column("tokens", "job_id_prefix")
    for table in ("secrets", "audit", "users"):
        op.drop_table(table)
