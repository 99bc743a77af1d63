"""The life of a trial apart from its reports: ends, leases, heartbeats, and runs that come back."""

from typing import Any

import pytest
from flask import Flask

from tests.calls import Calls
from tests.databases import dump, let_time_pass, revision

LEASE_S = 3600.0


@pytest.fixture
def trial(calls: Calls) -> dict[str, Any]:
    """The first trial of a job."""
    calls.register()
    return calls.trial(run_id="first")


def lose(calls: Calls, database_url: str, trial: dict[str, Any]) -> dict[str, Any]:
    """Let a trial's lease run out, and return the trial that another run gets."""
    let_time_pass(database_url, trial["job_id"], trial["trial_number"], LEASE_S + 1)
    return calls.trial(trial["job_id"])


def test_ending_a_dispatched_trial_makes_it_failed(calls: Calls, trial: dict[str, Any]) -> None:
    answer = calls.end(trial, reason="out of memory")
    assert (answer.status, answer.body) == (200, None)
    record = calls.record(trial)
    assert (record["status"], record["outcome"], record["converged"]) == ("Failed", "out of memory", None)
    assert record["outcome_code"] == "ended"


def test_ending_a_trial_without_a_reason_gives_one(calls: Calls, trial: dict[str, Any]) -> None:
    calls.must(calls.end(trial))
    assert calls.record(trial)["outcome"]


def test_ending_a_finished_trial_leaves_it_as_it_is(calls: Calls, trial: dict[str, Any]) -> None:
    calls.converge(trial)
    before = calls.record(trial)
    assert calls.end(trial).status == 200
    assert calls.record(trial) == before


def test_ending_a_trial_twice_is_harmless(calls: Calls, trial: dict[str, Any]) -> None:
    calls.must(calls.end(trial, reason="first"))
    assert calls.end(trial, reason="second").status == 200
    assert calls.record(trial)["outcome"] == "first"


def test_ending_an_unknown_trial_is_404(calls: Calls, trial: dict[str, Any], database_url: str) -> None:
    before = dump(database_url)
    for unknown in ({"job_id": "nobody"}, {"trial_number": 2}, {"batch_size": 8}):
        answer = calls.end(trial | unknown)
        assert answer.status == 404
        assert str(next(iter(unknown.values()))) in answer.message
    assert dump(database_url) == before


def test_a_failed_trial_gives_no_result_to_the_bandit(calls: Calls) -> None:
    calls.register(batch_sizes=[16], num_pruning_rounds=0)
    calls.must(calls.end(calls.trial()))
    assert "0 of the 2" in calls.trial()["reason"]


def test_a_run_within_its_lease_keeps_its_batch_size(calls: Calls, trial: dict[str, Any], database_url: str) -> None:
    let_time_pass(database_url, "train", 1, LEASE_S - 60)
    assert calls.trial()["type"] == "Concurrent"
    assert calls.record(trial)["status"] == "Dispatched"


def test_a_run_whose_lease_expired_is_lost_at_the_next_ask(
    calls: Calls, trial: dict[str, Any], database_url: str
) -> None:
    stand_in = lose(calls, database_url, trial)
    assert (stand_in["batch_size"], stand_in["type"]) == (trial["batch_size"], "Pruning")
    record = calls.record(trial)
    assert (record["status"], record["converged"]) == ("Failed", None)
    assert "lease expired" in record["outcome"]
    assert record["outcome_code"] == "lost"


@pytest.mark.parametrize("call", ["report", "heartbeat", "end"])
def test_a_lost_run_is_ended_inside_any_call_on_its_job_that_comes_next(
    calls: Calls, trial: dict[str, Any], database_url: str, call: str
) -> None:
    other = calls.trial(run_id="other")
    let_time_pass(database_url, "train", trial["trial_number"], LEASE_S + 1)
    assert calls.record(trial)["status"] == "Dispatched"
    assert getattr(calls, call)(other).status == 200
    assert calls.record(trial)["status"] == "Failed"


def test_an_overdue_run_that_reports_is_not_lost(calls: Calls, trial: dict[str, Any], database_url: str) -> None:
    let_time_pass(database_url, "train", trial["trial_number"], LEASE_S + 1)
    calls.must(calls.report(trial))
    assert calls.record(trial)["status"] == "Dispatched"


def test_the_lease_is_a_setting_and_the_caller_receives_it(app: Flask, calls: Calls, database_url: str) -> None:
    app.config["LEASE_S"] = 10.0
    calls.register()
    trial = calls.trial()
    assert trial["lease_s"] == calls.must(calls.heartbeat(trial))["lease_s"] == 10.0
    let_time_pass(database_url, "train", 1, 11)
    assert calls.trial()["type"] == "Pruning"


@pytest.mark.parametrize("sign_of_life", ["heartbeat", "report", "ask"])
def test_a_sign_of_life_renews_the_lease(
    calls: Calls, trial: dict[str, Any], database_url: str, sign_of_life: str
) -> None:
    let_time_pass(database_url, "train", 1, LEASE_S - 60)
    match sign_of_life:
        case "heartbeat":
            assert calls.must(calls.heartbeat(trial))["status"] == "Dispatched"
        case "report":
            calls.must(calls.report(trial))
        case "ask":
            assert calls.trial(run_id="first")["trial_number"] == 1
    let_time_pass(database_url, "train", 1, LEASE_S - 60)
    assert calls.trial()["type"] == "Concurrent"
    assert calls.record(trial)["status"] == "Dispatched"


def test_a_heartbeat_of_an_ended_trial_says_so(calls: Calls, trial: dict[str, Any]) -> None:
    calls.converge(trial)
    assert calls.must(calls.heartbeat(trial))["status"] == "Succeeded"


def test_a_heartbeat_of_an_unknown_trial_is_400(calls: Calls, trial: dict[str, Any]) -> None:
    assert calls.heartbeat(trial | {"job_id": "nobody"}).status == 400
    assert calls.heartbeat(trial | {"trial_number": 9}).status == 400


def test_only_runs_of_the_same_job_are_lost(calls: Calls, trial: dict[str, Any], database_url: str) -> None:
    calls.register(job_id="train-2")
    let_time_pass(database_url, "train", 1, LEASE_S + 1)
    calls.trial("train-2")
    assert calls.record(trial)["status"] == "Dispatched"


def test_a_report_revives_a_lost_run(calls: Calls, trial: dict[str, Any], database_url: str) -> None:
    lose(calls, database_url, trial)
    assert calls.must(calls.report(trial))["reason"] == "continue"
    record = calls.record(trial)
    assert (record["status"], record["outcome"], record["ended_at"]) == ("Dispatched", None, None)
    assert record["energy"] == 10.0


def test_a_lost_run_s_final_report_is_its_result(calls: Calls, trial: dict[str, Any], database_url: str) -> None:
    stand_in = lose(calls, database_url, trial)
    calls.converge(trial, energy=7.0)
    assert calls.record(trial)["status"] == "Succeeded"
    assert calls.trial()["batch_size"] == 8
    calls.diverge(stand_in)
    assert calls.trial()["type"] == "Concurrent"


def test_a_late_result_does_not_rewrite_that_of_its_stand_in(
    calls: Calls, trial: dict[str, Any], database_url: str
) -> None:
    stand_in = lose(calls, database_url, trial)
    calls.converge(stand_in)
    following = calls.trial()
    calls.diverge(trial)
    calls.converge(following)
    assert calls.trial()["batch_size"] == 32


def test_a_run_may_be_lost_and_revived_again_and_again(calls: Calls, trial: dict[str, Any], database_url: str) -> None:
    for epoch in range(1, 4):
        lose(calls, database_url, trial)
        assert calls.record(trial)["status"] == "Failed"
        calls.must(calls.report(trial, current_epoch=epoch, report_number=epoch))
        assert calls.record(trial)["status"] == "Dispatched"
    assert calls.must(calls.report(trial, current_epoch=4, metric=1.0))["converged"]


def test_totals_may_not_fall_across_a_revival(calls: Calls, trial: dict[str, Any], database_url: str) -> None:
    calls.must(calls.report(trial, energy=20.0))
    lose(calls, database_url, trial)
    assert calls.report(trial, energy=10.0).status == 409
    assert calls.record(trial)["status"] == "Failed"


def test_a_lost_run_that_asks_again_by_its_name_gets_its_trial_back(
    calls: Calls, trial: dict[str, Any], database_url: str
) -> None:
    calls.must(calls.report(trial, report_number=1))
    lose(calls, database_url, trial)
    again = calls.trial(run_id="first")
    assert (again["trial_number"], again["energy"], again["report_number"]) == (1, 10.0, 1)


def test_a_run_that_its_caller_ended_gets_its_trial_back_when_it_asks_again(
    calls: Calls, trial: dict[str, Any]
) -> None:
    calls.must(calls.report(trial, report_number=1))
    calls.must(calls.end(trial, reason="RuntimeError: connection closed by peer"))
    again = calls.trial(run_id="first")
    assert (again["trial_number"], again["outcome"], again["energy"]) == (1, None, 10.0)
    assert calls.must(calls.report(trial, report_number=2, current_epoch=2))["reason"] == "continue"
    assert calls.record(trial)["status"] == "Dispatched"


def test_a_run_that_came_to_its_end_gets_its_trial_back_only_if_it_resumes_it(
    calls: Calls, trial: dict[str, Any]
) -> None:
    calls.must(calls.end(trial, reason="left without a verdict", over=True))
    assert calls.record(trial)["outcome_code"] == "left"
    assert calls.trial(run_id="first", resumes=False)["outcome"] == "left without a verdict"
    assert calls.must(calls.report(trial))["reason"] == "left"
    assert calls.trial(run_id="first")["outcome"] is None
    assert calls.must(calls.report(trial))["reason"] == "continue"


def test_a_run_that_failed_gets_its_trial_back_even_if_it_does_not_resume(calls: Calls, trial: dict[str, Any]) -> None:
    calls.must(calls.end(trial, reason="RuntimeError: connection closed by peer"))
    assert calls.trial(run_id="first", resumes=False)["outcome"] is None


def test_an_outdated_attempt_does_not_end_the_run_that_continues(calls: Calls, trial: dict[str, Any]) -> None:
    for number in (1, 2):
        calls.must(calls.report(trial, report_number=number, current_epoch=number))
    calls.must(calls.end(trial, reason="NCCL timeout", report_number=1))
    assert calls.record(trial)["status"] == "Dispatched"
    calls.must(calls.end(trial, reason="the disk is full", report_number=2))
    assert calls.record(trial)["outcome"] == "the disk is full"


def test_a_run_that_came_back_may_be_ended_again(calls: Calls, trial: dict[str, Any]) -> None:
    for reason in ("the disk is full", "the disk is still full"):
        calls.must(calls.end(trial, reason=reason))
        assert calls.record(trial)["outcome_code"] == "ended"
        assert calls.record(trial)["outcome"] == reason
        calls.trial(run_id="first")


def test_a_revived_run_does_not_come_back_from_its_caller_s_own_end(
    calls: Calls, trial: dict[str, Any], database_url: str
) -> None:
    lose(calls, database_url, trial)
    calls.must(calls.report(trial))
    calls.must(calls.end(trial))
    assert calls.must(calls.report(trial, metric=1.0))["reason"] == "ended"
    assert calls.record(trial)["status"] == "Failed"


def test_every_call_that_changes_a_job_raises_its_revision_by_one(
    calls: Calls, trial: dict[str, Any], database_url: str
) -> None:
    assert revision(database_url, "train") == 1
    calls.must(calls.report(trial))
    calls.must(calls.heartbeat(trial))
    calls.must(calls.end(trial))
    calls.must(calls.reset())
    assert revision(database_url, "train") == 5


def test_ending_a_lost_trial_ends_it_for_good(calls: Calls, trial: dict[str, Any], database_url: str) -> None:
    lose(calls, database_url, trial)
    calls.must(calls.end(trial, reason="not needed"))
    assert calls.must(calls.report(trial))["stop_train"]
    record = calls.record(trial)
    assert (record["status"], record["outcome"]) == ("Failed", "not needed")


@pytest.mark.parametrize("path", ["/report", "/trials/heartbeat", "/trials/after", "/trials/probe", "/trials"])
def test_a_call_of_a_run_from_before_the_job_was_deleted_does_not_reach_the_new_job_s_trial(
    calls: Calls, trial: dict[str, Any], database_url: str, path: str
) -> None:
    calls.delete()
    calls.register()
    successor = calls.trial(run_id="second")
    assert successor["trial_number"] == trial["trial_number"]
    before = dump(database_url)
    fields = {"time": 1.0, "energy": 10.0, "metric": 1.0, "current_epoch": 1, "sizes": []}
    named = {name: trial[name] for name in ("job_id", "batch_size", "trial_number")} | {"run_id": "first"}
    answer = calls("PATCH" if path == "/trials" else "POST", path, named | fields)
    assert answer.status == (404 if path == "/trials" else 400)
    assert "is not of run 'first'" in answer.message
    assert dump(database_url) == before


def test_the_calls_of_the_run_that_has_the_trial_count(calls: Calls, trial: dict[str, Any]) -> None:
    assert calls.heartbeat(trial, run_id="first").status == 200
    assert calls.must(calls.report(trial, run_id="first", metric=1.0))["converged"]
