"""Several processes under one run name: who holds the trial, and who can take it over and end it."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.calls import Answer, Calls
from tests.databases import let_time_pass

LEASE_S = 3600.0


@pytest.fixture
def trial(calls: Calls) -> dict[str, Any]:
    """The trial of the run `run`, held by the process `first`."""
    calls.register()
    return calls.trial(run_id="run", process="first")


def test_a_process_that_asks_again_gets_its_trial(calls: Calls, trial: dict[str, Any]) -> None:
    assert calls.trial(run_id="run", process="first") == trial
    assert trial["held_by"] is None


def test_another_process_is_told_who_holds_the_trial(calls: Calls, trial: dict[str, Any]) -> None:
    calls.must(calls.report(trial, process="first"))
    answer = calls.trial(run_id="run", process="second")
    assert (answer["held_by"], answer["status"], answer["energy"]) == ("first", "Dispatched", 10.0)
    assert calls.trial(run_id="run", process="first")["held_by"] is None


def test_the_name_of_a_process_is_compared_exactly(calls: Calls, trial: dict[str, Any]) -> None:
    assert calls.trial(run_id="run", process="First")["held_by"] == "first"
    assert calls.trial(run_id="run", process="first ")["held_by"] == "first"


def test_another_process_is_told_when_the_lease_has_expired(
    calls: Calls, trial: dict[str, Any], database_url: str
) -> None:
    let_time_pass(database_url, "train", 1, LEASE_S + 1)
    answer = calls.trial(run_id="run", process="second")
    assert (answer["held_by"], answer["status"], answer["outcome"]) == ("first", "Failed", None)


def test_of_two_processes_that_take_a_trial_over_one_gets_it(calls: Calls, trial: dict[str, Any]) -> None:
    assert calls.trial(run_id="run", process="second", takes_over="first") == trial
    assert calls.trial(run_id="run", process="third", takes_over="first")["held_by"] == "second"
    assert calls.trial(run_id="run", process="second", takes_over="first") == trial  # the answer was lost


def test_of_many_processes_that_take_a_trial_over_at_once_one_gets_it(
    calls: Calls, trial: dict[str, Any], other_app: Callable[[], Calls]
) -> None:
    others = [other_app() for _ in range(4)]

    def take_over(number: int) -> Answer:
        return others[number].ask(run_id="run", process=f"process {number}", takes_over="first")

    with ThreadPoolExecutor(4) as pool:
        holders = [answer.body["held_by"] for answer in pool.map(take_over, range(4))]
    (winner,) = {holder for holder in holders if holder is not None}
    assert [number for number, holder in enumerate(holders) if holder is None] == [int(winner.split()[1])]


def test_a_process_gets_a_trial_that_another_process_has_ended(calls: Calls, trial: dict[str, Any]) -> None:
    calls.must(calls.end(trial, process="first", reason="the disk is full"))
    assert calls.trial(run_id="run", process="second", resumes=False)["held_by"] is None
    assert calls.trial(run_id="run", process="third", resumes=False)["held_by"] == "second"


def test_a_caller_that_names_no_process_gets_the_trial(calls: Calls, trial: dict[str, Any]) -> None:
    assert calls.trial(run_id="run") == trial
    assert calls.trial(run_id="run", process="second") == trial


def test_a_process_does_not_end_the_trial_that_another_process_has_taken_over(
    calls: Calls, trial: dict[str, Any]
) -> None:
    calls.trial(run_id="run", process="second", takes_over="first")
    calls.must(calls.end(trial, process="first"))
    assert calls.record(trial)["status"] == "Dispatched"
    calls.must(calls.end(trial, process="second"))
    assert calls.record(trial)["outcome_code"] == "ended"


def test_a_process_does_not_end_the_trial_that_another_process_reports_to(calls: Calls, trial: dict[str, Any]) -> None:
    calls.must(calls.report(trial, process="second", report_number=1))
    refused = calls.report(trial, process="first", report_number=1, energy=5.0)
    assert refused.status == 409
    calls.must(calls.end(trial, process="first", report_number=1))
    assert calls.record(trial)["status"] == "Dispatched"
    calls.must(calls.end(trial, process="second", report_number=1))
    assert calls.record(trial)["outcome_code"] == "ended"


def test_a_refused_report_changes_no_holder(calls: Calls, trial: dict[str, Any]) -> None:
    calls.must(calls.report(trial, process="first", energy=20.0))
    assert calls.report(trial, process="second", energy=10.0).status == 409
    assert calls.trial(run_id="run", process="first")["held_by"] is None


def test_a_caller_that_names_no_process_ends_the_trial(calls: Calls, trial: dict[str, Any]) -> None:
    calls.must(calls.end(trial))
    assert calls.record(trial)["outcome_code"] == "ended"


def test_a_process_ends_a_trial_whose_process_is_unknown(calls: Calls) -> None:
    calls.register()
    trial = calls.trial(run_id="run")
    calls.must(calls.end(trial, process="first"))
    assert calls.record(trial)["outcome_code"] == "ended"
