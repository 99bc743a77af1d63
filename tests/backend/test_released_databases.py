"""A database that a released version wrote opens without a change to what it holds, and its jobs continue.

`released/VERSION.sql` is the dump of an SQLite database with a job of each policy. `released/VERSION.json` holds what
that version answered about the jobs.
"""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from backend.app import create_app
from backend.config import Settings
from backend.database.extensions import db
from backend.usecases import reading, tokens, users
from tests.calls import Calls
from tests.databases import dump

RELEASED = Path(__file__).parent / "released"
VERSIONS = sorted(file.stem for file in RELEASED.glob("*.sql"))
JOBS = ("zeus-job", "gp-ucb-job")
CHANGED = {("0.2.0", "gp-ucb-job"): ["trial 2"]}
"""The trials that today's rules would give another batch size, or another limit of their first epoch."""
WORDING = ("message", "reason", "next_reason", "ruled_out", "best")


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def url(version: str, tmp_path: Path) -> str:
    with closing(sqlite3.connect(tmp_path / "released.db")) as connection:
        connection.executescript((RELEASED / f"{version}.sql").read_text())
    return f"sqlite:///{tmp_path}/released.db"


@pytest.fixture
def app(url: str) -> Iterator[Flask]:
    made = create_app(Settings(database_url=url, log_level="CRITICAL"))
    yield made
    with made.app_context():
        db.engine.dispose()


@pytest.fixture
def calls(app: Flask) -> Calls:
    with app.app_context():
        token = tokens.create("test", tokens.Scope.ADMIN)
    client = app.test_client()
    client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {token}"
    return Calls.through_test_client(client)


def without_wording(answer: Any) -> Any:
    """An answer with a mark in place of its texts: numbers and codes are compared, words may improve."""
    if isinstance(answer, dict):
        return {name: bool(value) if name in WORDING else without_wording(value) for name, value in answer.items()}
    return [without_wording(value) for value in answer] if isinstance(answer, list) else answer


def test_opening_it_changes_no_value(url: str) -> None:
    before = dump(url)
    with create_app(Settings(database_url=url, log_level="CRITICAL")).app_context():
        assert reading.list_jobs(reading.JobFilter(), 0, 10).total == len(JOBS)
        db.engine.dispose()
    after = dump(url)
    for table in before.keys() - {"alembic_version"}:
        widths = {len(row) for row in before[table]}  # later versions add columns after these
        assert [row[:width] for width in widths for row in after[table]] == before[table], table


def without_later_fields(answer: Any, released: Any) -> Any:
    """An answer with the fields alone that the released version has."""
    if isinstance(released, dict):
        return {name: without_later_fields(answer[name], value) for name, value in released.items()}
    if isinstance(released, list):
        return [without_later_fields(*pair) for pair in zip(answer, released, strict=True)]
    return answer


def test_its_jobs_look_as_they_did(version: str, calls: Calls) -> None:
    answers = json.loads((RELEASED / f"{version}.json").read_text())
    assert len(answers) == 3 * len(JOBS)
    for path, answer in answers.items():
        now = without_later_fields(calls("GET", path).body, answer)
        assert without_wording(now) == without_wording(answer), path


def test_every_decision_in_it_is_made_again_or_names_the_change_of_the_rules(app: Flask, version: str) -> None:
    with app.app_context():
        for job in JOBS:
            trials, differences = reading.replay_job(job)
            assert trials > 10
            others = [line for line in differences if "only its reason differs" not in line]
            assert [line.split(":")[0] for line in others] == CHANGED.get((version, job), [])
            assert all("; the rules have changed: " in line for line in others)


def test_its_running_trials_report_and_its_jobs_go_on(calls: Calls) -> None:
    for job in JOBS:
        resumed = calls.trial(job, run_id="running")
        assert resumed["trial_number"] == len(calls.records(job))
        assert calls.converge(resumed)["converged"]
        assert calls.trial(job, run_id="next")["trial_number"] == resumed["trial_number"] + 1


def test_its_users_and_tokens_are_those_that_were_created(app: Flask) -> None:
    with app.app_context():
        assert [user.name for user in users.list_all()] == ["ada"]
        assert [(token.label, token.job_id_prefix) for token in tokens.list_all()] == [("trainers", "zeus")]
