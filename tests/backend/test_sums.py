"""The kept sums over a job's trials: filled by the migration, and counted anew after an earlier release has written.

That they equal the sums over the trials after any call is checked in `test_histories`.
"""

import flask_migrate
from flask import Flask

from backend.database.extensions import db
from tests import specs
from tests.backend.sums import kept_sums, sums_of
from tests.calls import Calls
from tests.databases import connected, let_time_pass


def play(calls: Calls, database_url: str) -> None:
    """Let a job's runs end in several ways."""
    calls.register(policy="gp-ucb", eta_knob=0.5, beta_knob=None)
    for _ in range(3):
        calls.converge(calls.trial())
    calls.diverge(calls.trial())
    calls.end(calls.trial())
    lost = calls.trial()
    calls.must(calls.report(lost, energy=7.0))
    let_time_pass(database_url, "train", lost["trial_number"], 48 * 3600)
    calls.must(calls.reset())
    calls.converge(calls.trial())


def test_the_migration_adds_up_the_trials_that_are_there(calls: Calls, app: Flask, database_url: str) -> None:
    play(calls, database_url)
    expected = sums_of(specs.job(), calls.records())
    assert kept_sums(database_url) == expected
    with app.app_context():
        flask_migrate.downgrade(revision="0015")
        flask_migrate.upgrade()
        db.engine.dispose()
    assert kept_sums(database_url) == expected
    calls.converge(calls.trial())
    assert kept_sums(database_url) == sums_of(specs.job(), calls.records())


def test_what_an_earlier_release_has_changed_is_counted_at_the_next_call(calls: Calls, database_url: str) -> None:
    play(calls, database_url)
    before = kept_sums(database_url)
    with connected(database_url) as connection:  # as a release that does not know the sums does
        connection.exec_driver_sql("UPDATE jobs SET revision = revision + 1")
        connection.exec_driver_sql("UPDATE trials SET energy_j = energy_j + 1000 WHERE number = 1")
    assert kept_sums(database_url) == before
    calls.heartbeat(calls.trial())
    assert kept_sums(database_url)["energy_j"] == before["energy_j"] + 1000
    calls.converge(calls.trial())
    assert kept_sums(database_url) == sums_of(specs.job(), calls.records())


def test_a_job_that_an_earlier_release_has_registered_gets_its_team(calls: Calls, database_url: str) -> None:
    play(calls, database_url)
    with connected(database_url) as connection:
        connection.exec_driver_sql("UPDATE jobs SET team = ''")
    calls.trial()
    with connected(database_url) as connection:
        assert connection.exec_driver_sql("SELECT team FROM jobs").scalar_one() == "train"
    assert kept_sums(database_url) == sums_of(specs.job(), calls.records())


def test_a_deleted_job_leaves_no_sums(calls: Calls, database_url: str) -> None:
    play(calls, database_url)
    calls.must(calls.delete())
    with connected(database_url) as connection:
        assert connection.exec_driver_sql("SELECT COUNT(*) FROM job_days").scalar_one() == 0
