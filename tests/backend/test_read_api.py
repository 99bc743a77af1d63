"""The read calls of the API: lists of jobs, beliefs, savings and the audit log."""

from typing import Any

import pytest
from flask import Flask

from backend.usecases import jobs, reading
from backend.usecases.audit import COMMAND_LINE
from lightning_bso.wire import MAX_INT
from tests.calls import Calls
from tests.databases import connected, round_trips


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


def test_the_list_recommends_the_batch_size_that_each_job_does(calls: Calls, database_url: str) -> None:
    """However much of a job the stored summary of its trials says."""
    changes: dict[str, dict[str, Any]] = {
        "bandit": {"num_pruning_rounds": 1},
        "learner": {"policy": "gp-ucb"},
        "crashing": {"policy": "gp-ucb"},
        "unsummarized": {"policy": "gp-ucb"},
        "running": {"policy": "gp-ucb"},
        "reset": {"policy": "gp-ucb"},
        "targetless": {"policy": "gp-ucb", "target_metric": None, "max_epochs": 1},
        "new": {},
    }
    for job_id, of_job in changes.items():
        calls.must(calls.register(job_id=job_id, job_id_prefix=job_id, **of_job))
        for number in range(6 if job_id != "new" else 0):
            trial = calls.trial(job_id)
            if job_id == "crashing" and number in (2, 3):
                calls.must(calls.end(trial, reason="RuntimeError: shape"))
            else:
                calls.converge(trial, energy=20.0 - trial["batch_size"] / 4)
    calls.must(calls.reset("reset"))
    calls.trial("running")
    with connected(database_url) as connection:
        connection.exec_driver_sql(
            "UPDATE beliefs SET told = '' WHERE job = (SELECT id FROM jobs WHERE job_id = 'unsummarized')"
        )
    listed = {job["job_id"]: job for job in calls.must(calls("GET", "/jobs"))["jobs"]}
    described = {job_id: calls.describe(job_id) for job_id in changes}
    for name in ("recommended_batch_size", "best_batch_size"):
        assert {job_id: listed[job_id][name] for job_id in changes} == {
            job_id: described[job_id][name] for job_id in changes
        }
    assert {listed[job_id]["recommended_batch_size"] for job_id in ("new", "reset")} == {None}
    assert all(listed[job_id]["recommended_batch_size"] for job_id in changes.keys() - {"new", "reset"})
    assert {job["default_batch_size"] for job in listed.values()} == {16}


def test_a_changed_job_is_listed_as_it_is_now(calls: Calls) -> None:
    calls.register(policy="gp-ucb")
    for trials in range(1, 4):
        calls.converge(calls.trial())
        (listed,) = calls.must(calls("GET", "/jobs"))["jobs"]
        assert (listed["trials"], listed["recommended_batch_size"]) == (
            trials,
            calls.describe()["recommended_batch_size"],
        )
    assert listed["last_launch_at"] == calls.records()[-1]["started_at"]


@pytest.mark.parametrize("policy", ["zeus", "gp-ucb"])
@pytest.mark.parametrize("target", [{}, {"target_metric": None, "calibration_runs": 1}], ids=["given", "learnt"])
def test_a_list_of_many_jobs_takes_as_many_round_trips_as_a_list_of_one(
    app: Flask, calls: Calls, policy: str, target: dict[str, Any]
) -> None:
    for number in range(8):
        job_id = f"job-{number}"
        calls.must(calls.register(job_id=job_id, job_id_prefix=job_id, policy=policy, num_pruning_rounds=1, **target))
        if target:
            first = calls.trial(job_id)
            calls.must(calls.report(first, metric=1.0))
            calls.must(calls.end(first, over=True, current_epoch=1))
        for _ in range(3):
            calls.converge(calls.trial(job_id))
    calls("GET", "/jobs?limit=1")  # the first of a connection
    calls.must(calls.heartbeat(calls.trial("job-7")))
    with round_trips(app) as of_one:
        calls.must(calls("GET", "/jobs?limit=1"))
    calls.must(calls.heartbeat(calls.trial("job-7")))
    with round_trips(app) as of_all:
        assert len(calls.must(calls("GET", "/jobs"))["jobs"]) == 8
    assert len(of_all) == len(of_one)


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
