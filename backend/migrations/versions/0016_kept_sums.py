"""Sums over each job's trials, in the job's row and by day, and the numbers of its last success and last verdict.

Revision ID: 0016
Revises: 0015
"""

import json
import re
from collections import defaultdict
from datetime import date, datetime, timedelta
from importlib import import_module
from itertools import groupby

import sqlalchemy as sa
from alembic import op
from flask import current_app
from sqlalchemy.dialects import mysql

_models = import_module(".database.models", current_app.import_name)
MYSQL_OPTIONS = _models.MYSQL_OPTIONS
ExactString = _models.ExactString

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

UTC = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
WHOLE = ("launches", "last_success", "last_verdict", "runs", "recurrences", "default_recurrences")
REAL = ("energy_j", "time_s", "cost_j", "default_energy_j", "default_time_s", "default_cost_j")
SUMMED = ("runs", "recurrences", "energy_j", "time_s", "cost_j")
JOBS_AT_ONCE = 1000


def upgrade() -> None:
    for name, type_ in [
        ("summed_revision", sa.BigInteger()),
        *((name, sa.Integer()) for name in WHOLE),
        *((name, sa.Double()) for name in REAL),
    ]:
        op.add_column("jobs", sa.Column(name, type_, nullable=False, server_default="0"))
    op.add_column("jobs", sa.Column("last_launch_at", UTC))
    op.add_column("jobs", sa.Column("idle_from", UTC))
    op.add_column("jobs", sa.Column("team", ExactString(255), nullable=False, server_default=""))
    op.add_column("jobs", sa.Column("drifted_trial", sa.Integer()))
    op.create_table(
        "job_days",
        sa.Column("job", sa.Integer(), sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("day", sa.Date(), primary_key=True),
        sa.Column("runs", sa.Integer(), nullable=False),
        sa.Column("recurrences", sa.Integer(), nullable=False),
        sa.Column("energy_j", sa.Double(), nullable=False),
        sa.Column("time_s", sa.Double(), nullable=False),
        sa.Column("cost_j", sa.Double(), nullable=False),
        **MYSQL_OPTIONS,
    )
    op.create_index("ix_job_days_day", "job_days", ["day"])
    connection = op.get_bind()
    # Before the sums: what a server of the earlier release changes from now on raises only `revision`.
    connection.execute(sa.text("UPDATE jobs SET summed_revision = revision"))
    numbers = connection.scalars(sa.text("SELECT id FROM jobs ORDER BY id")).all()
    for start in range(0, len(numbers), JOBS_AT_ONCE):
        _fill(connection, numbers[start : start + JOBS_AT_ONCE])


def _fill(connection: sa.Connection, numbers: list[int]) -> None:
    """Add up the trials of some jobs."""
    times = ("created_at", "last_launch_at", "idle_from")
    jobs = sa.table(
        "jobs",
        *map(sa.column, ("id", "job_id", "spec", "team", *WHOLE, *REAL)),
        *(sa.column(name, UTC) for name in times),
    )
    days = sa.table("job_days", sa.column("job"), sa.column("day", sa.Date()), *map(sa.column, SUMMED))
    names = ("job", "number", "type", "status", "batch_size", "energy_j", "time_s")
    times = ("started_at", "ended_at", "last_seen_at")
    trials = sa.table(
        "trials",
        *map(sa.column, names),
        sa.column("converged", sa.Boolean()),
        *(sa.column(name, UTC) for name in times),
    )
    query = sa.select(jobs.c.id, jobs.c.job_id, jobs.c.spec, jobs.c.created_at).where(jobs.c.id.in_(numbers))
    job_of = {job.id: job for job in connection.execute(query)}
    if not job_of:
        return
    is_job = jobs.c.id == sa.bindparam("of_job")
    teams = [{"of_job": job.id, "team": re.split("[/-]", job.job_id, maxsplit=1)[0] or job.job_id} for job in job_of.values()]
    connection.execute(jobs.update().where(is_job).values(team=sa.bindparam("team")), teams)
    found = connection.execute(
        sa.select(trials).where(trials.c.job.in_(numbers)).order_by(trials.c.job, trials.c.number)
    )
    kept, by_day = [], []
    for job, of_job in groupby(found, key=lambda trial: trial.job):
        sums, of_days, last = _sums(json.loads(job_of[job].spec), list(of_job))
        idle_from = None
        if sums["launches"] >= 6:
            interval = (last - job_of[job].created_at) / (sums["launches"] - 1)
            idle_from = last + max(timedelta(hours=1), 5 * interval)
        kept.append(sums | {"of_job": job, "last_launch_at": last, "idle_from": idle_from})
        by_day += [{"job": job, "day": day} | sums_of_day for day, sums_of_day in of_days.items()]
    if kept:
        columns = {name: sa.bindparam(name) for name in (*WHOLE, *REAL, "last_launch_at", "idle_from")}
        connection.execute(jobs.update().where(is_job).values(columns), kept)
    # A server of this release may run beside the migration, if its database was put back to an earlier state.
    connection.execute(days.delete().where(days.c.job.in_(numbers)))
    if by_day:
        connection.execute(days.insert(), by_day)


def _sums(
    spec: dict[str, object], trials: list[sa.Row]
) -> tuple[dict[str, float], dict[date, dict[str, float]], datetime]:
    eta, max_power = spec["eta_knob"], spec["max_power"]
    sums: dict[str, float] = dict.fromkeys(WHOLE, 0) | dict.fromkeys(REAL, 0.0)
    days: dict[date, dict[str, float]] = defaultdict(lambda: dict.fromkeys(SUMMED, 0))
    for trial in trials:
        sums["launches"] = trial.number
        if trial.status == "Dispatched":
            continue
        cost_j = eta * trial.energy_j + (1 - eta) * max_power * trial.time_s
        values = (1, int(bool(trial.converged)), trial.energy_j, trial.time_s, cost_j)
        of_day = days[(trial.ended_at or trial.last_seen_at).date()]
        for name, value in zip(SUMMED, values, strict=True):
            sums[name] += value
            of_day[name] += value
            if trial.converged and trial.batch_size == spec["default_batch_size"] and name != "runs":
                sums[f"default_{name}"] += value
        if trial.converged and trial.type in ("Calibration", "Pruning", "MAB"):
            sums["last_success"] = trial.number
        if trial.status in ("Succeeded", "Calibrated"):
            sums["last_verdict"] = trial.number
    return sums, days, trials[-1].started_at


def downgrade() -> None:
    op.drop_table("job_days")
    for name in ("summed_revision", *WHOLE, *REAL, "last_launch_at", "idle_from", "team", "drifted_trial"):
        op.drop_column("jobs", name)
