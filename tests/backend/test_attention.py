"""The jobs that need attention by the time and by their costs: overdue runs, jobs that stopped running, and drift.

Rows of failures and of ends without a verdict, and stuck jobs, are in `test_dashboard`.
"""

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import select, update

from backend.core.attention import MIN_LAUNCHES, Cause, idle_from, usual_interval
from backend.database.models import Job
from backend.usecases.audit import COMMAND_LINE
from backend.usecases.overview import JobForAttention, overview
from tests.calls import Calls
from tests.databases import connected, let_time_pass

LEASE_S = 3600.0
HOUR = timedelta(hours=1)


@pytest.fixture
def attention(app: Flask) -> Callable[[], list[JobForAttention]]:
    """A function that returns the jobs that need attention."""

    def attention() -> list[JobForAttention]:
        with app.app_context():
            return overview(COMMAND_LINE, LEASE_S).attention

    return attention


def let_it_have_run(url: str, every: timedelta, last_ago: timedelta) -> None:
    """Move the job's launches into the past."""
    with connected(url) as connection:
        launches, last = connection.execute(select(Job.launches, Job.last_launch_at)).one()
        moved = last - last_ago
        created = moved - (launches - 1) * every
        idle = idle_from(launches, created, moved)
        connection.execute(update(Job).values(last_launch_at=moved, created_at=created, idle_from=idle))


def test_a_job_that_has_stopped_running_needs_attention(
    calls: Calls, client: FlaskClient, database_url: str, attention: Callable[[], list[JobForAttention]]
) -> None:
    calls.register(policy="gp-ucb")
    for _ in range(MIN_LAUNCHES):
        calls.converge(calls.trial())
    let_it_have_run(database_url, every=24 * HOUR, last_ago=4 * 24 * HOUR)
    assert attention() == []
    let_it_have_run(database_url, every=24 * HOUR, last_ago=2 * 24 * HOUR)
    (job,) = attention()
    assert (job.cause, job.usual_s) == (Cause.IDLE, 24 * 3600)
    assert job.idle_s == pytest.approx(6 * 24 * 3600, abs=60)
    assert "No run for" in client.get("/admin/").text
    calls.trial()
    assert attention() == []


def test_a_run_that_is_overdue_is_named_once_beside_worse(
    calls: Calls, client: FlaskClient, database_url: str, attention: Callable[[], list[JobForAttention]]
) -> None:
    calls.register()
    for _ in range(2):
        calls.trial()
    for number in (1, 2):
        let_time_pass(database_url, "train", number, LEASE_S + 60)
    assert [(job.cause, job.number, job.trial) for job in attention()] == [(Cause.OVERDUE, 2, 1)]
    assert "See or end trial 1" in client.get("/admin/").text
    calls.register(job_id="bad", job_id_prefix="bad")
    for _ in range(3):
        calls.end(calls.trial("bad"))
    let_time_pass(database_url, "bad", calls.trial("bad")["trial_number"], LEASE_S + 60)
    assert [(job.job_id, job.cause) for job in attention()] == [("bad", Cause.CRASHES), ("train", Cause.OVERDUE)]


def test_costs_that_have_drifted_are_news_for_some_runs(
    calls: Calls, attention: Callable[[], list[JobForAttention]]
) -> None:
    calls.register(policy="gp-ucb", batch_sizes=[16], max_epochs=200, beta_knob=None)

    def run(epochs: int) -> None:
        calls.must(calls.report(calls.trial(), energy=float(epochs), time=1.0, metric=1.0, current_epoch=epochs))

    for _ in range(6):
        run(10)
    assert attention() == []
    for _ in range(2):
        run(60)
    (job,) = attention()
    assert job.cause is Cause.DRIFTED
    assert job.trial in (7, 8)
    for _ in range(5):
        run(60)
    assert attention() == []


def test_how_long_a_job_may_be_idle_follows_from_how_often_it_runs() -> None:
    last = datetime(2026, 11, 1)
    assert usual_interval(MIN_LAUNCHES - 1, last - HOUR, last) is None
    assert usual_interval(MIN_LAUNCHES, last - (MIN_LAUNCHES - 1) * HOUR, last) == HOUR
    assert idle_from(MIN_LAUNCHES - 1, last - HOUR, last) is None
    assert idle_from(MIN_LAUNCHES, last - (MIN_LAUNCHES - 1) * HOUR, last) == last + 5 * HOUR
    assert idle_from(61, last - HOUR, last) == last + HOUR  # trainings of a few minutes pause for a while
