"""A first run under `gp-ucb` ends after an epoch that shows that it is not worth its cost. This is no failure."""

from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from backend.usecases import reading
from tests.calls import Calls

DEAR_J = 80.0
"""Cost of an epoch that is too much: runs with the default need 100 J for ten epochs."""


@pytest.fixture
def trial(calls: Calls) -> dict[str, Any]:
    """The first run with another batch size than the default, which has converged."""
    calls.must(calls.register(policy="gp-ucb", batch_sizes=[8, 16, 32], max_epochs=50))
    calls.must(calls.report(calls.trial(), energy=100.0, current_epoch=10, metric=1.0))
    trial = calls.trial()
    assert trial["batch_size"] != 16
    return trial


def price_out(calls: Calls, trial: dict[str, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = calls.must(calls.report(trial, energy=DEAR_J))
    assert answer["reason"] == "priced_out", answer
    return answer


def test_the_answer_ends_the_run_and_says_in_words_what_comes_next(calls: Calls, trial: dict[str, Any]) -> None:
    answer = price_out(calls, trial)
    assert (answer["stop_train"], answer["converged"]) == (True, False)
    assert "the first epoch has cost 80.0 J" in answer["message"]
    assert "has not failed" in answer["message"]
    assert calls.trial()["batch_size"] != trial["batch_size"]


def test_an_epoch_within_the_limit_lets_the_run_go_on(calls: Calls, trial: dict[str, Any]) -> None:
    assert calls.must(calls.report(trial, energy=5.0))["reason"] == "continue"
    assert calls.must(calls.report(trial, energy=DEAR_J, current_epoch=2))["reason"] == "continue"


def test_it_counts_apart_and_as_spent(calls: Calls, trial: dict[str, Any]) -> None:
    before = calls.must(calls("GET", "/jobs/train/savings"))["spent"]["cost"]
    price_out(calls, trial)
    [size] = [size for size in calls.describe()["batch_sizes"] if size["batch_size"] == trial["batch_size"]]
    assert (size["runs"], size["converged"], size["priced_out"], size["lost"]) == (0, 0, 1, 0)
    assert size["ruled_out"] is None
    assert calls.must(calls("GET", "/jobs/train/savings"))["spent"]["cost"] == before + DEAR_J


def test_it_is_no_reason_for_attention(calls: Calls, trial: dict[str, Any]) -> None:
    price_out(calls, trial)
    for _ in range(2):
        failed = calls.trial()
        calls.diverge(failed)
    assert calls.describe()["attention"] is None


def test_the_record_has_neither_converged_nor_failed(calls: Calls, trial: dict[str, Any]) -> None:
    price_out(calls, trial)
    record = calls.record(trial)
    assert (record["status"], record["outcome_code"], record["converged"]) == ("Succeeded", "priced_out", None)


def test_the_same_report_again_gets_the_same_answer_and_a_later_one_the_outcome(
    calls: Calls, trial: dict[str, Any]
) -> None:
    report = {"energy": DEAR_J, "report_number": 1}
    first = calls.must(calls.report(trial, **report))
    assert calls.must(calls.report(trial, **report)) == first
    later = calls.must(calls.report(trial, energy=2 * DEAR_J, current_epoch=2))
    assert (later["stop_train"], later["converged"], later["reason"]) == (True, False, "priced_out")


def test_a_training_that_goes_on_by_its_own_rules_records_what_it_uses(calls: Calls, trial: dict[str, Any]) -> None:
    price_out(calls, trial)
    named = {"job_id": trial["job_id"], "trial_number": trial["trial_number"]}
    calls.must(calls("POST", "/trials/after", named | {"energy": 30.0, "time": 3.0, "metric": 0.5}))
    assert calls.record(trial)["energy_after"] == 30.0


def test_a_training_that_will_not_stop_gets_no_such_verdict_and_replay_agrees(calls: Calls, app: Flask) -> None:
    calls.must(calls.register(policy="gp-ucb", batch_sizes=[8, 16], max_epochs=50))
    calls.must(calls.report(calls.trial(), energy=100.0, current_epoch=10, metric=1.0))
    assert calls.must(calls.report(calls.trial(run_id="second", stops=False), energy=DEAR_J))["reason"] == "continue"
    with app.app_context():
        assert reading.replay_job("train")[1] == []


def test_a_run_that_asks_again_learns_that_it_has_ended(calls: Calls) -> None:
    calls.must(calls.register(policy="gp-ucb", batch_sizes=[8, 16], max_epochs=50))
    calls.must(calls.report(calls.trial(), energy=100.0, current_epoch=10, metric=1.0))
    price_out(calls, calls.trial(run_id="second"))
    again = calls.trial(run_id="second")
    assert again["converged"] is False
    assert "the first epoch has cost" in again["outcome"]


def test_replay_makes_the_same_decisions(calls: Calls, app: Flask, trial: dict[str, Any]) -> None:
    price_out(calls, trial)
    calls.trial()
    with app.app_context():
        assert reading.replay_job("train")[1] == []


def test_the_page_of_the_trial_says_it_in_words(calls: Calls, trial: dict[str, Any], client: FlaskClient) -> None:
    price_out(calls, trial)
    page = client.get("/admin/trial/?job=train&number=2").text
    assert "the first epoch has cost 80.0 J" in page
    assert "priced_out" in page


def test_a_run_that_reports_within_its_first_epoch_goes_on(calls: Calls, app: Flask, trial: dict[str, Any]) -> None:
    calls.must(calls.report(trial, energy=DEAR_J / 2, current_epoch=0))
    assert calls.must(calls.report(trial, energy=DEAR_J, current_epoch=1))["reason"] == "continue"
    with app.app_context():
        assert reading.replay_job("train")[1] == []


def test_a_run_that_is_resumed_by_a_training_that_will_not_stop_goes_on(calls: Calls) -> None:
    calls.must(calls.register(policy="gp-ucb", batch_sizes=[8, 16], max_epochs=50))
    calls.must(calls.report(calls.trial(), energy=100.0, current_epoch=10, metric=1.0))
    calls.trial(run_id="second")
    assert calls.must(calls.report(calls.trial(run_id="second", stops=False), energy=DEAR_J))["reason"] == "continue"
