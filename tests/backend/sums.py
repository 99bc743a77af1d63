"""The sums that a server keeps, and the same sums added up from the records of trials."""

from collections import defaultdict
from datetime import datetime
from typing import Any

import pytest
from sqlalchemy import select

from backend.database.models import Job, JobDay
from tests.databases import connected

OF_DAY = ("runs", "recurrences", "energy_j", "time_s", "cost_j")
OF_DEFAULT = tuple(f"default_{name}" for name in OF_DAY[1:])
NUMBERS = ("launches", "last_success", "last_verdict")

Sums = dict[str, Any]
"""Sums by name, and by day and name."""


def kept_sums(url: str, job_id: str = "train") -> Sums:
    """Return the sums that are stored of a job."""
    names = (*NUMBERS, *OF_DAY, *OF_DEFAULT)
    with connected(url) as connection:
        of_job = connection.execute(select(*(getattr(Job, name) for name in names)).where(Job.job_id == job_id)).one()
        days = select(JobDay.day, *(getattr(JobDay, name) for name in OF_DAY)).join(Job, Job.id == JobDay.job)
        days = days.where(Job.job_id == job_id)
        by_day = {str(row.day): dict(zip(OF_DAY, row[1:], strict=True)) for row in connection.execute(days)}
    sums = dict(zip(names, of_job, strict=True))
    return sums | {
        f"{day} {name}": value for day, of_day in by_day.items() if of_day["runs"] for name, value in of_day.items()
    }


def sums_of(spec: dict[str, Any], records: list[dict[str, Any]]) -> Sums:
    """Add up the records of a job's trials, as the API sends them."""
    sums: Sums = defaultdict(int) | dict.fromkeys((*NUMBERS, *OF_DAY, *OF_DEFAULT), 0)
    for record in records:
        sums["launches"] = record["trial_number"]
        if record["status"] == "Dispatched":
            continue
        values = [1, int(bool(record["converged"])), record["energy"], record["time"], record["cost"]]
        day = str(datetime.fromisoformat(record["ended_at"]).date())
        for name, value in zip(OF_DAY, values, strict=True):
            sums[name] += value
            sums[f"{day} {name}"] += value
            if record["converged"] and record["batch_size"] == spec["default_batch_size"] and name != "runs":
                sums[f"default_{name}"] += value
        if record["converged"] and record["type"] in ("Calibration", "Pruning", "MAB"):
            sums["last_success"] = record["trial_number"]
        if record["status"] in ("Succeeded", "Calibrated"):
            sums["last_verdict"] = record["trial_number"]
    return {name: pytest.approx(value) for name, value in sums.items()}
