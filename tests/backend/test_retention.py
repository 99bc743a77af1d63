"""Old reports and old audit entries can be removed. What decisions and sums depend on stays."""

import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from flask import Flask
from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.exc import DBAPIError

from backend.cli import main
from backend.database.models import AuditEntry, Report, Trial
from backend.errors import ReportsRemoved
from backend.usecases import reading, retention
from tests.calls import Calls
from tests.databases import connected, let_time_pass

OLD = timedelta(days=40)


def run(database_url: str, *arguments: str) -> Result:
    return CliRunner().invoke(main, [*arguments, f"--database-url={database_url}"])


def train(calls: Calls, **changes: Any) -> dict[str, Any]:
    """Train until the target is reached in the fourth epoch."""
    trial = calls.trial(**changes)
    for epoch in range(1, 5):
        calls.must(calls.report(trial, metric=0.9 if epoch == 4 else 0.1, current_epoch=epoch, report_number=epoch))
    return trial


def let_trials_age(database_url: str) -> None:
    with connected(database_url) as connection:
        for id_, ended_at in connection.execute(select(Trial.id, Trial.ended_at)).all():
            connection.execute(update(Trial).where(Trial.id == id_).values(ended_at=ended_at and ended_at - OLD))


def numbers(database_url: str) -> list[int]:
    """The numbers of the stored reports, trial after trial."""
    with connected(database_url) as connection:
        return list(connection.scalars(select(Report.number).order_by(Report.trial, Report.number)))


@pytest.fixture
def answers(calls: Calls) -> list[Any]:
    """What the server says of two trials, one of which runs."""
    calls.register(target_metric=0.8)
    train(calls)
    running = calls.trial()
    for epoch in (1, 2):
        calls.must(calls.report(running, metric=0.1, current_epoch=epoch, report_number=epoch))
    return said(calls)


def said(calls: Calls) -> list[Any]:
    paths = ("/jobs/train", "/jobs/train/savings", "/jobs/train/belief", "/jobs/train/trials")
    body = [calls("GET", path).body for path in paths]
    for trial in body[-1]["trials"]:
        del trial["ended_at"]
    return body


@pytest.mark.usefixtures("app")
def test_a_trial_that_ended_long_ago_keeps_its_last_report_and_all_sums(
    calls: Calls, answers: list[Any], database_url: str
) -> None:
    let_trials_age(database_url)
    result = run(database_url, "prune-reports", "--older-than=30")
    assert re.search(r"ended before \d{4}-.*: 1\nReports removed: 3\n$", result.output), result.output
    assert numbers(database_url) == [4, 1, 2]
    assert said(calls) == answers


def test_many_trials_and_entries_are_removed_a_few_at_a_time(
    calls: Calls, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "TRIALS_AT_ONCE", 2)
    monkeypatch.setattr(retention, "ENTRIES_AT_ONCE", 2)
    calls.register(target_metric=0.8)
    for _ in range(5):
        train(calls)
    let_trials_age(database_url)
    assert "Reports removed: 15" in run(database_url, "prune-reports", "--older-than=30").output
    assert numbers(database_url) == [4] * 5
    old = {"at": datetime(2020, 1, 1), "actor": "anyone", "address": "", "action": "ask", "detail": ""}
    with connected(database_url) as connection:
        connection.execute(insert(AuditEntry), [old] * 5)
    assert "UTC removed: 5" in run(database_url, "prune-audit", "--older-than=30").output


@pytest.mark.usefixtures("answers")
def test_a_trial_that_ended_lately_keeps_its_reports(database_url: str) -> None:
    assert "Reports removed: 0" in run(database_url, "prune-reports", "--older-than=1").output
    assert numbers(database_url) == [1, 2, 3, 4, 1, 2]


@pytest.mark.usefixtures("answers")
def test_a_dry_run_counts_and_removes_nothing(database_url: str) -> None:
    let_trials_age(database_url)
    result = run(database_url, "prune-reports", "--older-than=30", "--dry-run")
    assert "Reports that would be removed: 3" in result.output
    assert numbers(database_url) == [1, 2, 3, 4, 1, 2]


def test_calibration_runs_keep_their_curves(calls: Calls, database_url: str) -> None:
    calls.register(target_metric=None, calibration_runs=1)
    trial = calls.trial()
    for epoch in (1, 2):
        calls.must(calls.report(trial, metric=0.1 * epoch, current_epoch=epoch, report_number=epoch))
    calls.must(calls.end(trial, over=True, current_epoch=2, report_number=2))
    let_trials_age(database_url)
    assert "Reports removed: 0" in run(database_url, "prune-reports", "--older-than=30").output
    assert numbers(database_url) == [1, 2]


@pytest.mark.usefixtures("answers")
def test_the_last_report_can_still_be_repeated(calls: Calls, database_url: str) -> None:
    let_trials_age(database_url)
    run(database_url, "prune-reports", "--older-than=30")
    first = {"job_id": "train"} | calls("GET", "/jobs/train/trials").body["trials"][0]
    again = calls.must(calls.report(first, metric=0.9, current_epoch=4, report_number=4))
    assert again["converged"]
    assert numbers(database_url) == [4, 1, 2]


def test_a_lost_run_that_comes_back_goes_on_from_its_last_report(calls: Calls, database_url: str) -> None:
    calls.register(target_metric=0.8)
    lost = calls.trial()
    for epoch in (1, 2, 3):
        calls.must(calls.report(lost, metric=0.1, current_epoch=epoch, report_number=epoch))
    let_time_pass(database_url, "train", 1, 3601)
    calls.trial()
    let_trials_age(database_url)
    assert "Reports removed: 2" in run(database_url, "prune-reports", "--older-than=30").output
    refused = calls.report(lost, metric=0.1, current_epoch=1, report_number=1)  # an earlier one, which is removed
    assert (refused.status, calls.record(lost)["outcome_code"]) == (409, "lost")
    again = calls.must(calls.report(lost, metric=0.1, current_epoch=3, report_number=3))
    assert not again["stop_train"]
    assert calls.must(calls.report(lost, metric=0.9, current_epoch=4, report_number=4))["converged"]
    assert calls.record(lost)["converged"]


@pytest.mark.usefixtures("answers")
def test_a_replay_says_that_reports_are_gone(app: Flask, database_url: str) -> None:
    let_trials_age(database_url)
    run(database_url, "prune-reports", "--older-than=30")
    with app.app_context(), pytest.raises(ReportsRemoved, match="reports of job 'train' were removed"):
        reading.replay_job("train")


@pytest.mark.usefixtures("answers")
def test_the_removal_is_in_the_audit_log(database_url: str) -> None:
    let_trials_age(database_url)
    run(database_url, "prune-reports", "--older-than=30")
    with connected(database_url) as connection:
        (entry,) = connection.execute(
            select(AuditEntry.actor, AuditEntry.detail).where(AuditEntry.action == "remove old rows")
        )
    assert entry.actor == "command line"
    assert re.fullmatch(r"reports: 3, of trials that ended before .* UTC: 1", entry.detail)


@pytest.mark.usefixtures("answers")
def test_old_audit_entries_are_removed_and_the_log_stays_protected(database_url: str) -> None:
    old = {"at": datetime(2020, 1, 1), "actor": "anyone", "address": "", "action": "ask", "detail": ""}
    with connected(database_url) as connection:
        recent = connection.scalar(select(func.count()).select_from(AuditEntry))
        connection.execute(insert(AuditEntry), [old, old])
    dry = run(database_url, "prune-audit", "--older-than=30", "--dry-run")
    assert "UTC that would be removed: 2" in dry.output
    assert "UTC removed: 2" in run(database_url, "prune-audit", "--older-than=30").output
    with connected(database_url) as connection:
        assert connection.scalar(select(func.count()).select_from(AuditEntry)) == recent + 1
    if database_url.startswith("sqlite"):
        with pytest.raises(DBAPIError, match="only added to"), connected(database_url) as connection:
            connection.execute(delete(AuditEntry))


def test_an_age_below_a_day_is_refused(tmp_path: Path) -> None:
    result = run(f"sqlite:///{tmp_path}/bso.db", "prune-reports", "--older-than=0")
    assert (result.exit_code, "1<=x<=36500" in result.output) == (2, True)
