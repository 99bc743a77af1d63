"""The policy `gp-ucb` behind the API: it decides from stored data only, and may start warm from another job."""

import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from flask import Flask

import lightning_bso
from backend.core.gp_ucb.belief import MAX_LOST_TRIALS
from backend.usecases import reading
from tests import specs
from tests.backend.test_replay import work
from tests.calls import Answer, Calls
from tests.databases import connected, dump, let_time_pass

EPOCHS = {4: 9, 8: 6, 16: 8, 32: 7, 64: 99}
"""Epochs that a run needs to converge. With 64 none converges."""
SEED = 11
"""Seed of a random workload in which runs are lost and revived, the job is reset, and some runs have no bound."""


def register(calls: Calls, job_id: str = "train", **changes: Any) -> None:
    """Register a job with this policy. The job must be new."""
    job = {"job_id": job_id, "policy": "gp-ucb", "batch_sizes": sorted(EPOCHS), "max_epochs": 20}
    answer = calls.register(**job | changes)
    assert answer.status == 201, answer.text


def train(calls: Calls, trial: dict[str, Any]) -> dict[str, Any]:
    """Run a trial to its verdict, at 10 J per epoch. Returns the verdict."""
    needed = EPOCHS[trial["batch_size"]]
    for epoch in (needed // 2, needed):
        totals = {
            "time": float(epoch),
            "energy": 10.0 * epoch,
            "current_epoch": epoch,
            "metric": float(epoch >= needed),
        }
        verdict: dict[str, Any] = calls.must(calls.report(trial, **totals))
        if verdict["stop_train"]:
            return verdict
    raise AssertionError("the run never ended")


def recur(calls: Calls, job_id: str = "train", times: int = 8) -> list[dict[str, Any]]:
    """Run trials one after the other. Returns the trials."""
    trials = []
    for _ in range(times):
        trials.append(calls.trial(job_id))
        train(calls, trials[-1])
    return trials


def test_a_job_goes_from_its_default_to_a_cheaper_batch_size_and_says_why(calls: Calls) -> None:
    register(calls)
    trials = recur(calls, times=12)
    assert trials[0]["batch_size"] == 16
    assert {trial["type"] for trial in trials} == {"MAB"}
    assert [trial["batch_size"] for trial in trials].count(8) >= 4
    assert [trial["batch_size"] for trial in trials].count(64) <= 1
    assert "default" in trials[0]["reason"]
    assert all(" J" in trial["reason"] for trial in trials[1:])
    described = calls.describe()
    assert described["stage"] == "MAB"
    assert described["best_batch_size"] == 8


def test_the_verdict_on_a_failed_run_says_whether_its_batch_size_comes_again_and_the_job_shows_it(calls: Calls) -> None:
    register(calls)
    train(calls, calls.trial())
    first = calls.trial()
    assert "not dispatched again until" in calls.diverge(first)["message"]
    reasons = {size["batch_size"]: size.get("ruled_out") for size in calls.describe()["batch_sizes"]}
    assert "never converged" in (reasons.pop(first["batch_size"]) or "")
    assert set(reasons.values()) == {None}


def test_a_target_reached_beyond_the_bound_counts_unlike_under_zeus(calls: Calls) -> None:
    register(calls, "train-gp")
    register(calls, "train-zeus", policy="zeus")
    for job_id, reason in (("train-gp", "converged"), ("train-zeus", "cost_bound")):
        train(calls, calls.trial(job_id))
        assert calls.must(calls.report(calls.trial(job_id), energy=1e6, metric=1.0))["reason"] == reason


def run_out_of_memory(calls: Calls, trial: dict[str, Any], energy: float) -> dict[str, Any]:
    """Report that a run ended in its first step."""
    totals = {"time": 0.1, "energy": energy, "metric": None, "current_epoch": 0}
    return dict(calls.must(calls.report(trial, out_of_memory=True, **totals)))


@pytest.mark.parametrize("energy", [0.0, 0.001, 3.0])
def test_the_joules_of_a_run_that_ran_out_of_memory_are_no_epochs(calls: Calls, energy: float) -> None:
    register(calls, batch_sizes=[8, 16, 32, 64, 128])
    train(calls, calls.trial())
    before = calls.must(calls("GET", "/jobs/train/belief"))
    trial = calls.trial()
    while trial["batch_size"] != 32:
        train(calls, trial)
        before = calls.must(calls("GET", "/jobs/train/belief"))
        trial = calls.trial()
    run_out_of_memory(calls, trial, energy)
    belief = calls.must(calls("GET", "/jobs/train/belief"))
    assert belief["cost_bound"] == pytest.approx(before["cost_bound"], rel=0.2)
    for size_now, size_before in zip(belief["batch_sizes"], before["batch_sizes"], strict=True):
        assert size_now["expected_cost"] == pytest.approx(size_before["expected_cost"], rel=0.3)


def test_what_is_larger_than_a_batch_size_that_does_not_fit_is_not_tried(calls: Calls, app: Flask) -> None:
    register(calls, batch_sizes=[8, 16, 32, 64, 128])
    train(calls, calls.trial())
    trial = calls.trial()
    while trial["batch_size"] != 32:
        train(calls, trial)
        trial = calls.trial()
    run_out_of_memory(calls, trial, 1.0)
    larger = "larger than 32, which did not fit in memory"
    assert ruled_out(calls) == {32: "did not fit in memory", 64: larger, 128: larger}
    assert {trial["batch_size"] for trial in recur(calls, times=10)} <= {8, 16}
    with app.app_context():
        assert reading.replay_job("train")[1] == []


def test_a_batch_size_that_did_not_fit_is_not_dispatched_again_even_if_nothing_else_works(calls: Calls) -> None:
    register(calls, batch_sizes=[4, 8, 16, 32])
    verdict = run_out_of_memory(calls, calls.trial(), 1.0)
    assert "batch size 16 and larger ones are not dispatched again" in verdict["message"]
    assert ruled_out(calls) == {16: "did not fit in memory", 32: "larger than 16, which did not fit in memory"}
    trial = calls.trial()
    assert trial["batch_size"] == 8  # the next smaller one, even if still smaller ones may cost less
    tried = Counter({8: 1})
    while not (verdict := calls.diverge(trial))["message"].endswith("start a new exploration"):
        trial = calls.trial()
        tried[trial["batch_size"]] += 1
    assert tried == {4: 3, 8: 3}
    assert "every batch size that fits in memory has failed" in calls.ask().message


def test_a_job_of_which_nothing_fits_in_memory_says_so_at_once(calls: Calls) -> None:
    register(calls, batch_sizes=[16, 32])
    verdict = run_out_of_memory(calls, calls.trial(), 1.0)
    assert "batch size 16, the smallest, does not fit in memory" in verdict["message"]
    assert calls.ask().status == 409
    calls.must(calls.reset())
    assert calls.trial()["batch_size"] == 16


def test_a_batch_size_that_fits_after_all_frees_the_larger_ones(calls: Calls) -> None:
    register(calls, batch_sizes=[16, 64])
    train(calls, calls.trial())
    while (trial := calls.trial())["batch_size"] != 16:
        train(calls, trial)
    verdict = run_out_of_memory(calls, trial, 1.0)
    assert "16 has converged before in this job, so it may be dispatched again" in verdict["message"]
    assert ruled_out(calls) == {64: "larger than 16, which did not fit in memory"}
    train(calls, calls.trial())
    assert "memory" not in ruled_out(calls).get(64, "")


def ruled_out(calls: Calls) -> dict[int, str]:
    """Return the batch sizes that are ruled out, each with the reason."""
    sizes = calls.describe()["batch_sizes"]
    return {size["batch_size"]: size["ruled_out"] for size in sizes if size.get("ruled_out")}


def test_the_fourth_try_of_a_recurrence_may_cost_twice_the_bound(calls: Calls, database_url: str) -> None:
    register(calls)
    train(calls, calls.trial())
    for _ in range(3):
        calls.diverge(calls.trial())
    fourth = calls.trial()
    assert fourth["batch_size"] == 16
    assert calls.must(calls.report(fourth, energy=3.5 * 80))["reason"] == "continue"
    assert calls.must(calls.report(fourth, energy=4.5 * 80))["reason"] == "cost_bound"
    assert bound_factors(database_url) == [1, 1, 1, 1, 2]


def test_the_run_after_a_change_is_stored_without_a_bound(calls: Calls, database_url: str) -> None:
    register(calls, batch_sizes=[16], max_epochs=200)
    recur(calls, times=4)
    for trial in (calls.trial(), calls.trial()):
        assert calls.must(calls.report(trial, energy=800.0, current_epoch=80))["reason"] == "cost_bound"
    assert calls.must(calls("GET", "/jobs/train/belief"))["cost_bound"] is None
    unbounded = calls.trial()
    assert "changed" in unbounded["reason"]
    assert calls.must(calls.report(unbounded, energy=1e9))["reason"] == "continue"
    assert bound_factors(database_url)[-1] is None


def bound_factors(database_url: str) -> Sequence[float | None]:
    with connected(database_url) as connection:
        return connection.exec_driver_sql("SELECT bound_factor FROM trials ORDER BY number").scalars().all()


# --- Evidence from ended trials ---


def test_a_lost_run_of_a_batch_size_without_a_result_counts_in_its_cost(calls: Calls, database_url: str) -> None:
    reasons = []
    for job_id, energy_j in (("train-1", 40.0), ("train-2", 80.0)):
        register(calls, job_id)
        train(calls, calls.trial(job_id))
        lost = calls.trial(job_id)
        assert lost["batch_size"] != 16
        calls.must(calls.report(lost, energy=energy_j))
        calls.must(calls.end(lost))
        reasons.append(calls.trial(job_id)["reason"])
    assert reasons[0] != reasons[1]


def test_of_many_lost_runs_only_the_last_are_read(
    calls: Calls, database_url: str, other_app: Callable[[], Calls]
) -> None:
    register(calls)
    for _ in range(MAX_LOST_TRIALS + 3):
        lost = calls.trial()
        calls.must(calls.report(lost, energy=40.0))
        calls.must(calls.end(lost))
    last_unread = 3
    belief = calls.must(calls("GET", "/jobs/train/belief"))
    with connected(database_url) as connection:
        connection.exec_driver_sql(f"UPDATE trials SET type = 'unreadable' WHERE number <= {last_unread}")
    assert calls.must(other_app()("GET", "/jobs/train/belief")) == belief
    with connected(database_url) as connection:
        connection.exec_driver_sql(f"UPDATE trials SET type = 'unreadable' WHERE number = {last_unread + 1}")
    assert other_app()("GET", "/jobs/train/belief").status == 500


def test_a_reset_job_knows_nothing(calls: Calls) -> None:
    register(calls)
    recur(calls, times=4)
    calls.must(calls.reset())
    trial = calls.trial()
    assert trial["batch_size"] == 16
    assert "no run has ended yet" in trial["reason"]


def test_a_report_of_a_run_from_before_a_reset_is_judged_by_its_old_exploration(calls: Calls) -> None:
    register(calls)
    train(calls, calls.trial())
    old = calls.trial()
    calls.must(calls.reset())
    assert calls.must(calls.report(old, energy=1e6))["reason"] == "cost_bound"
    assert "no run has ended yet" in calls.trial()["reason"]


def test_a_revived_trial_counts_like_any_other(calls: Calls, database_url: str, other_app: Callable[[], Calls]) -> None:
    register(calls)
    lost = calls.trial(run_id="lost")
    let_time_pass(database_url, "train", lost["trial_number"], 10**6)
    assert calls.trial()["batch_size"] == 16
    assert calls.record(lost)["status"] == "Failed"
    assert train(calls, lost)["converged"]
    reason = calls.trial(run_id="next")["reason"]
    assert "the best so far" in reason
    assert other_app().trial(run_id="next")["reason"] == reason


# --- Replay ---


def test_every_decision_of_a_random_workload_follows_from_what_is_stored(
    app: Flask, calls: Calls, database_url: str
) -> None:
    calls.register(batch_sizes=[8, 16, 32, 64], beta_knob=2.0, max_epochs=6, policy="gp-ucb")
    choices = work(calls, database_url, random.Random(SEED), steps=200)
    with connected(database_url) as connection:
        revived = "SELECT COUNT(*) FROM reports WHERE expired_revision IS NOT NULL"
        assert connection.exec_driver_sql(revived).scalar_one() > 0
        resets = "SELECT exploration FROM jobs"
        assert connection.exec_driver_sql(resets).scalar_one() > 0
        unbounded = "SELECT COUNT(*) FROM trials WHERE bound_factor IS NULL"
        assert connection.exec_driver_sql(unbounded).scalar_one() > 0
    assert len({size for size, _ in choices}) > 1
    with app.app_context():
        assert reading.replay_job("train") == (len(choices), [])


def test_a_stored_bound_that_was_tampered_with_is_found(app: Flask, calls: Calls, database_url: str) -> None:
    register(calls)
    recur(calls, times=4)
    with app.app_context():
        for factor, differs in (("8", True), ("NULL", True), ("1", False)):
            with connected(database_url) as connection:
                connection.exec_driver_sql(f"UPDATE trials SET bound_factor = {factor} WHERE number = 2")
            assert bool(reading.replay_job("train")[1]) is differs


def test_a_warm_job_is_replayed_from_what_it_began_with(app: Flask, calls: Calls) -> None:
    register(calls, "train-donor")
    recur(calls, "train-donor", times=4)
    register(calls, "train", default_batch_size=64, warm_start_from="train-donor", gpu_model="H100")
    recur(calls, times=3)
    calls.must(calls.reset())
    recur(calls, times=3)
    calls.must(calls.delete("train-donor"))
    with app.app_context():
        assert reading.replay_job("train") == (6, [])


# --- Warm start ---


def refused(answer: Answer) -> str:
    """Return the message about `warm_start_from` in a 422."""
    assert answer.status == 422, answer.text
    fault = answer.body["detail"][0]
    assert fault["loc"] == ["warm_start_from"]
    assert "warm_start_from" in answer.message
    return str(fault["msg"])


@pytest.mark.parametrize(
    ("donor", "runs", "why"),
    [
        (None, 0, "does not exist"),
        ({"target_metric": 0.9}, 1, "another target"),
        ({"target_metric": 1.0, "higher_is_better_metric": False}, 0, "another target"),
        ({}, 0, "nothing to start from"),
        ({"batch_sizes": [4, 64], "default_batch_size": 64}, 1, "nothing to start from"),
        ({"batch_sizes": [12, 48], "default_batch_size": 12}, 1, "nothing to start from"),
        ({"policy": "zeus", "batch_sizes": list(range(1, 66))}, 1, "too many"),
    ],
    ids=["unknown", "target", "direction", "no run", "none converged", "no shared size", "too many sizes"],
)
def test_a_job_that_cannot_start_from_another_is_refused_and_nothing_is_stored(
    calls: Calls, database_url: str, donor: dict[str, Any] | None, runs: int, why: str
) -> None:
    if donor is not None:
        register(calls, "train-donor", **donor)
        for _ in range(runs):
            trial = calls.trial("train-donor")
            calls.must(calls.report(trial, metric=None if trial["batch_size"] == 64 else 1.0))
    before = dump(database_url)
    answer = calls.register(policy="gp-ucb", warm_start_from="train-donor")
    message = refused(answer)
    assert why in message
    assert "train-donor" in message
    assert dump(database_url) == before


def test_a_job_cannot_start_from_itself(calls: Calls) -> None:
    assert "does not exist" in refused(calls.register(policy="gp-ucb", warm_start_from="train"))


def test_a_warm_start_needs_the_policy(calls: Calls, database_url: str) -> None:
    register(calls, "train-donor")
    recur(calls, "train-donor", times=1)
    before = dump(database_url)
    for policy in ({"policy": "zeus"}, {}):
        answer = calls.register(warm_start_from="train-donor", **policy)
        assert answer.status == 422
        assert "warm_start_from requires policy gp-ucb" in answer.message
        assert answer.body["detail"]
    assert dump(database_url) == before


@pytest.mark.parametrize("policy", ["gp-ucb", "zeus"])
def test_a_warm_job_begins_with_the_predicted_best(calls: Calls, policy: str) -> None:
    register(calls, "train-donor", policy=policy)
    recur(calls, "train-donor", times=12)
    register(calls, default_batch_size=64, warm_start_from="train-donor", gpu_model="H100")
    first, second = calls.trial(), calls.trial()
    assert (first["batch_size"], second["batch_size"]) == (8, 8)
    assert "8 is the best" in first["reason"]
    train(calls, first)
    assert calls.trial()["batch_size"] != 64


def test_a_warm_job_is_registered_again_even_after_the_other_one_is_gone(calls: Calls, database_url: str) -> None:
    register(calls, "train-donor")
    recur(calls, "train-donor", times=3)
    register(calls, warm_start_from="train-donor")
    calls.must(calls.delete("train-donor"))
    before = dump(database_url)
    again = calls.register(policy="gp-ucb", batch_sizes=sorted(EPOCHS), max_epochs=20, warm_start_from="train-donor")
    assert again.status == 200
    assert again.body["warm_start_from"] == "train-donor"
    assert dump(database_url) == before


def test_another_donor_is_another_spec(calls: Calls) -> None:
    register(calls, "train-donor")
    recur(calls, "train-donor", times=1)
    register(calls)
    job = {"policy": "gp-ucb", "batch_sizes": sorted(EPOCHS), "max_epochs": 20}
    answer = calls.register(**job, warm_start_from="train-donor")
    assert answer.status == 409
    assert "warm_start_from" in answer.message


def test_what_the_other_job_learns_later_changes_nothing(calls: Calls, database_url: str) -> None:
    register(calls, "train-donor")
    recur(calls, "train-donor", times=2)
    register(calls, warm_start_from="train-donor")
    before = _warm_start(database_url, "train")
    recur(calls, "train-donor", times=6)
    train(calls, calls.trial())
    assert _warm_start(database_url, "train") == before


def test_a_reset_warm_job_begins_with_its_default(calls: Calls) -> None:
    register(calls, "train-donor")
    recur(calls, "train-donor", times=8)
    register(calls, default_batch_size=64, warm_start_from="train-donor")
    assert calls.trial()["batch_size"] == 8
    calls.must(calls.reset())
    assert calls.trial()["batch_size"] == 64


def test_a_warm_start_is_passed_on_to_the_next_job(calls: Calls, database_url: str) -> None:
    register(calls, "train-1")
    recur(calls, "train-1", times=7)
    register(calls, "train-2", warm_start_from="train-1")
    train(calls, calls.trial("train-2"))
    register(calls, "train-3", warm_start_from="train-2")
    received, passed_on = (_warm_start(database_url, job_id)["covariance"] for job_id in ("train-2", "train-3"))
    for index in range(len(EPOCHS)):
        assert passed_on[index][index] <= received[index][index] * (1 + 1e-6)


# --- Specs ---


def test_up_to_64_batch_sizes_can_be_chosen_from(calls: Calls, database_url: str) -> None:
    register(calls, "train-64", batch_sizes=list(range(1, 65)))
    train_64 = calls.trial("train-64")
    calls.converge(train_64)
    assert calls.trial("train-64")["batch_size"] in range(1, 65)
    before = dump(database_url)
    answer = calls.register(policy="gp-ucb", batch_sizes=list(range(1, 66)))
    assert answer.status == 422
    assert "64" in answer.message
    assert "zeus" in answer.message
    assert dump(database_url) == before
    assert calls.register(batch_sizes=list(range(1, 66))).status == 201


def test_a_spec_that_names_no_policy_means_the_published_one(calls: Calls) -> None:
    assert "policy" not in specs.job()
    assert calls.must(calls.register())["policy"] == "zeus"
    assert calls.trial()["type"] == "Pruning"


def test_an_unknown_policy_is_refused(calls: Calls) -> None:
    answer = calls.register(policy="random")
    assert answer.status == 422
    assert "gp-ucb" in answer.message


def test_a_spec_written_in_python_means_the_better_policy() -> None:
    spec = lightning_bso.JobSpec(job_id_prefix="train", batch_sizes=[8, 16], default_batch_size=8)
    assert spec.policy == "gp-ucb"


def _warm_start(url: str, job_id: str) -> dict[str, Any]:
    with connected(url) as connection:
        stored = connection.exec_driver_sql(f"SELECT warm_start FROM jobs WHERE job_id = '{job_id}'").scalar_one()
    return dict(json.loads(stored))
