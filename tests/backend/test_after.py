"""What a training uses after its verdict is recorded apart. It changes neither the cost nor a decision."""

from typing import Any

import pytest
from flask import Flask

from backend.usecases import reading
from tests.calls import Answer, Calls
from tests.databases import dump


@pytest.fixture
def trial(calls: Calls) -> dict[str, Any]:
    """A trial that has converged after 10 J and 1 s, with a metric of 1."""
    calls.register()
    trial = calls.trial(run_id="first")
    calls.must(calls.report(trial, metric=0.5))
    calls.converge(trial)
    return trial


def after(calls: Calls, trial: dict[str, Any], **changes: Any) -> Answer:
    """Report 30 J and 3 s after the verdict."""
    named = {"job_id": trial["job_id"], "trial_number": trial["trial_number"]}
    return calls("POST", "/trials/after", named | {"energy": 30.0, "time": 3.0} | changes)


def test_it_is_recorded_apart(calls: Calls, trial: dict[str, Any]) -> None:
    before = calls.record(trial)
    answer = after(calls, trial, metric=1.5)
    assert (answer.status, answer.body) == (200, None)
    record = calls.record(trial)
    assert (record["energy_after"], record["time_after"], record["best_metric"]) == (30.0, 3.0, 1.5)
    varying = ("energy_after", "time_after", "best_metric", "last_seen_at")
    assert {**record, **{name: before[name] for name in varying}} == before


def test_it_never_falls(calls: Calls, trial: dict[str, Any]) -> None:
    calls.must(after(calls, trial, metric=1.5))
    calls.must(after(calls, trial, energy=20.0, time=4.0, metric=0.1))
    record = calls.record(trial)
    assert (record["energy_after"], record["time_after"], record["best_metric"]) == (30.0, 4.0, 1.5)


def test_a_run_that_asks_again_gets_it_back(calls: Calls, trial: dict[str, Any]) -> None:
    calls.must(after(calls, trial))
    again = calls.trial(run_id="first")
    assert (again["converged"], again["energy_after"], again["time_after"]) == (True, 30.0, 3.0)


def test_the_best_of_falling_metrics_is_the_lowest(calls: Calls) -> None:
    calls.register(job_id="train-loss", higher_is_better_metric=False, target_metric=0.5)
    trial = calls.trial("train-loss")
    for number, metric in enumerate((0.9, None, 0.7, 0.4), 1):
        if metric is not None:
            calls.must(calls.report(trial, metric=metric, report_number=number))
    calls.must(after(calls, trial, metric=0.6))
    assert calls.record(trial)["best_metric"] == 0.4
    calls.must(after(calls, trial, metric=0.3))
    assert calls.record(trial)["best_metric"] == 0.3


def test_a_batch_size_shows_the_mean_of_what_its_converged_runs_end_with(calls: Calls, trial: dict[str, Any]) -> None:
    calls.must(after(calls, trial, metric=2.0))
    calls.must(calls.reset())
    for metric in (1.0, 4.0):
        other = calls.trial()
        assert other["batch_size"] == 16 or metric == 4.0
        calls.converge(other)
        calls.must(after(calls, other, metric=metric))
    means = {size["batch_size"]: size["mean_best_metric"] for size in calls.describe()["batch_sizes"]}
    assert means[16] == 1.0
    assert sorted(filter(None, means.values())) == [1.0, 4.0]


def test_a_trial_without_a_verdict_is_refused(calls: Calls, database_url: str) -> None:
    calls.register()
    trial = calls.trial()
    before = dump(database_url)
    answer = after(calls, trial)
    assert (answer.status, answer.message) == (409, "trial 1 has no verdict yet; report what it uses until then")
    assert dump(database_url) == before


def test_an_unknown_job_or_trial_is_400(calls: Calls, trial: dict[str, Any]) -> None:
    assert after(calls, trial, job_id="nobody").status == 400
    assert after(calls, trial, trial_number=9).status == 400


@pytest.mark.parametrize("policy", ["zeus", "gp-ucb"])
def test_no_decision_depends_on_it(calls: Calls, app: Flask, policy: str) -> None:
    choices = []
    for job_id in ("train-with", "train-without"):
        calls.register(job_id=job_id, policy=policy, mab_seed=1, beta_knob=None)
        for number in range(12):
            trial = calls.trial(job_id)
            choices.append((trial["batch_size"], trial["reason"]))
            calls.converge(trial, energy=10.0 + trial["batch_size"] + number)
            if job_id == "train-with":
                calls.must(after(calls, trial, energy=1e6, metric=9.0))
    assert choices[:12] == choices[12:]
    with app.app_context():
        assert reading.replay_job("train-with") == (12, [])


def test_metrics_whose_sum_is_no_number_any_more_are_shown(calls: Calls) -> None:
    calls.register(batch_sizes=[16], default_batch_size=16)
    for _ in range(2):
        assert calls.must(calls.report(calls.trial(), metric=1e308))["converged"]
    (size,) = calls.describe()["batch_sizes"]
    assert size["mean_best_metric"] == pytest.approx(1e290)
    assert calls("GET", "/jobs").status == 200
