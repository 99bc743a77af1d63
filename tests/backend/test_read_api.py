"""The read calls of the API: lists of jobs, beliefs, savings and the audit log."""

import pytest
from flask import Flask

from backend.usecases import jobs, reading
from backend.usecases.audit import COMMAND_LINE
from lightning_bso.wire import MAX_INT
from tests.calls import Calls


def test_jobs_are_found_by_a_part_of_their_ids_their_policy_and_gpu(calls: Calls) -> None:
    calls.register(job_id="train-a")
    calls.register(job_id="train-B", gpu_model="H100")
    calls.register(job_id="train-a%", policy="gp-ucb")

    def matching(query: str) -> list[str]:
        return [job["job_id"] for job in calls.must(calls("GET", f"/jobs?{query}"))["jobs"]]

    assert matching("") == ["train-a%", "train-B", "train-a"]
    assert matching("contains=-a") == ["train-a%", "train-a"]
    assert matching("contains=%25") == ["train-a%"]
    assert matching("contains=_") == []
    assert matching("policy=gp-ucb") == ["train-a%"]
    assert matching("gpu_model=H100") == ["train-B"]
    assert matching("gpu_model=h100") == []
    assert matching("paused=true") == []
    assert calls("GET", "/jobs?policy=best").status == 422
    page = calls.must(calls("GET", "/jobs?contains=a&limit=1&offset=1"))
    assert (page["total"], [job["job_id"] for job in page["jobs"]]) == (3, ["train-B"])


def test_the_list_of_jobs_says_how_each_stands(calls: Calls) -> None:
    calls.register()
    calls.converge(calls.trial(), energy=10)
    trial = calls.trial()
    (listed,) = calls.must(calls("GET", "/jobs"))["jobs"]
    assert (listed["trials"], listed["running"], listed["best_batch_size"]) == (2, 1, 16)
    assert listed["last_seen_at"] == calls.record(trial)["last_seen_at"]
    calls.reset()
    (listed,) = calls.must(calls("GET", "/jobs"))["jobs"]
    assert (listed["trials"], listed["best_batch_size"]) == (2, None)


@pytest.mark.parametrize("policy", ["zeus", "gp-ucb"])
def test_what_a_policy_would_do_next_is_what_it_then_does(calls: Calls, policy: str) -> None:
    calls.register(policy=policy)
    for number in range(12):
        belief = calls.must(calls("GET", "/jobs/train/belief"))
        trial = calls.trial()
        assert (belief["next_batch_size"], belief["next_reason"]) == (trial["batch_size"], trial["reason"])
        assert belief["policy"] == policy
        calls.converge(trial, energy=10.0 + number % 3 + trial["batch_size"] / 100)
    belief = calls.must(calls("GET", "/jobs/train/belief"))
    assert [size["batch_size"] for size in belief["batch_sizes"]] == [8, 16, 32]
    assert sum(size["runs"] for size in belief["batch_sizes"]) == 12
    assert all(9 < size["expected_cost"] < 14 for size in belief["batch_sizes"] if size["runs"])
    assert 18 < belief["cost_bound"] < 30


@pytest.mark.parametrize("policy", ["zeus", "gp-ucb"])
def test_the_announced_cost_bound_applies_to_the_next_run(calls: Calls, policy: str) -> None:
    calls.register(policy=policy, num_pruning_rounds=1)
    for _ in range(4):
        calls.converge(calls.trial())
    bounds_j = []
    for _ in range(4):  # under gp-ucb the last run has twice the usual bound
        bounds_j.append(calls.must(calls("GET", "/jobs/train/belief"))["cost_bound"])
        trial = calls.trial()
        assert calls.must(calls.report(trial, energy=0.999 * bounds_j[-1]))["reason"] == "continue"
        assert calls.must(calls.report(trial, energy=1.001 * bounds_j[-1]))["reason"] == "cost_bound"
    assert (max(bounds_j) > 1.9 * min(bounds_j)) is (policy == "gp-ucb")


def test_a_policy_that_knows_nothing_or_has_nothing_left_says_so(calls: Calls) -> None:
    calls.register(batch_sizes=[16])
    belief = calls.must(calls("GET", "/jobs/train/belief"))
    assert belief["batch_sizes"][0]["expected_cost"] is None
    assert (belief["cost_bound"], belief["next_batch_size"]) == (None, 16)
    calls.diverge(calls.trial())
    belief = calls.must(calls("GET", "/jobs/train/belief"))
    assert belief["next_batch_size"] is None
    assert "reset this job" in belief["next_reason"]
    assert calls("GET", "/jobs/other/belief").status == 404


def test_savings_are_what_the_default_would_have_cost_less_what_was_paid_failures_included(calls: Calls) -> None:
    calls.register(policy="gp-ucb", max_epochs=MAX_INT, beta_knob=None)
    assert calls.must(calls("GET", "/jobs/train/savings"))["against_default"] is None
    paid = 0.0
    for number in range(6):
        trial = calls.trial()
        energy = {8: 4.0, 16: 10.0, 32: 30.0}[trial["batch_size"]]
        paid += energy
        (calls.diverge if number == 2 else calls.converge)(trial, energy=energy)
    calls.trial()  # still running, so neither a recurrence nor paid
    savings = calls.must(calls("GET", "/jobs/train/savings"))
    assert (savings["launches"], savings["recurrences"], savings["spent"]["energy"]) == (6, 5, paid)
    assert savings["against_default"]["energy"] == pytest.approx(5 * 10.0 - paid)
    assert savings["against_default"]["cost"] == pytest.approx(5 * 10.0 - paid)
    best = min(size["mean_cost"] for size in calls.describe()["batch_sizes"] if size["mean_cost"])
    assert savings["against_best"]["cost"] == pytest.approx(5 * best - paid)
    calls.reset()
    assert calls.must(calls("GET", "/jobs/train/savings")) == savings


def test_the_audit_log_says_who_did_what_to_which_job_newest_first_and_outlives_the_job(calls: Calls) -> None:
    calls.register()
    trial = calls.trial(run_id="run 1")
    calls.trial(run_id="run 1")  # the same run again creates no entry
    calls.end(trial, reason="not today")
    calls.reset()
    calls.delete()
    calls.register(job_id="train-2")
    entries = calls.must(calls("GET", "/audit?job_id=train"))["entries"]
    assert [entry["action"] for entry in entries] == ["delete", "reset", "end trial", "ask", "register"]
    assert entries[2]["detail"] == "trial 1: not today"
    assert {(entry["actor"], entry["address"]) for entry in entries} == {("own machine", "127.0.0.1")}
    page = calls.must(calls("GET", "/audit?offset=1&limit=2"))
    assert (page["total"], [entry["action"] for entry in page["entries"]]) == (6, ["delete", "reset"])


@pytest.mark.parametrize("policy", ["zeus", "gp-ucb"])
def test_a_paused_job_dispatches_the_default_without_a_bound_and_resumes_where_it_was(
    calls: Calls, app: Flask, policy: str
) -> None:
    calls.register(policy=policy)
    for _ in range(4):
        calls.converge(calls.trial(), energy=10)
    with app.app_context():
        jobs.pause("train", paused=True, by=COMMAND_LINE)
        jobs.pause("train", paused=True, by=COMMAND_LINE)
    assert calls.describe()["paused"]
    for _ in range(3):
        belief = calls.must(calls("GET", "/jobs/train/belief"))
        assert (belief["next_batch_size"], belief["cost_bound"]) == (16, None)
        trial = calls.trial()
        assert (trial["batch_size"], trial["type"]) == (16, "Paused")
        assert not calls.must(calls.report(trial, energy=1e9))["stop_train"]
        calls.converge(trial, energy=1e9)
    with app.app_context():
        jobs.pause("train", paused=False, by=COMMAND_LINE)
    assert calls.trial()["type"] != "Paused"
    actions = [entry["action"] for entry in calls.must(calls("GET", "/audit"))["entries"]]
    assert (actions.count("pause"), actions.count("resume")) == (1, 1)
    with app.app_context():
        assert reading.replay_job("train")[1] == []


def test_a_run_says_which_machine_it_is_on(calls: Calls) -> None:
    calls.register()
    trial = calls.must(calls("POST", "/trials", {"job_id": "train", "run_id": "r", "host": "node-7"}))
    assert calls.record(trial)["host"] == "node-7"
    assert calls.record(calls.trial())["host"] is None
