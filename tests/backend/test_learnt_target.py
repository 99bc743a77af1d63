"""A job without a target learns one from its first runs, which take the default batch size."""

import random
from datetime import datetime
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import select, update

from backend.database.extensions import db
from backend.database.models import Job, Report, Trial
from backend.usecases import reading
from tests.calls import Calls

CURVES = [[0.2, 0.6, 0.9], [0.3, 0.7, 0.8], [0.1, 0.8, 0.85]]
"""The best metrics are 0.9, 0.8 and 0.85, so the target is 0.8."""


def register(calls: Calls, **changes: Any) -> None:
    """Register a job that learns its target."""
    calls.must(calls.register(**{"target_metric": None, "max_epochs": 3} | changes))


def train(calls: Calls, trial: dict[str, Any], metrics: list[float]) -> dict[str, Any]:
    """Report one epoch after another, each of 10 J, up to the last metric or a verdict. Returns the last answer."""
    answer: dict[str, Any] = {}
    for epoch, metric in enumerate(metrics, 1):
        totals = {"energy": 10.0 * epoch, "time": 1.0 * epoch, "current_epoch": epoch, "report_number": epoch}
        answer = calls.must(calls.report(trial, metric=metric, **totals))
        if answer["stop_train"]:
            break
    return answer


def calibrate(calls: Calls, curves: list[list[float]] = CURVES) -> list[dict[str, Any]]:
    """Run the calibration. Returns its trials."""
    trials = []
    for curve in curves:
        trials.append(calls.trial())
        train(calls, trials[-1], curve)
    return trials


def test_its_first_runs_take_the_default_and_are_not_judged(calls: Calls) -> None:
    register(calls)
    trial = calls.trial()
    assert (trial["batch_size"], trial["type"]) == (16, "Calibration")
    assert trial["reason"] == "calibration: the target is learnt from the first 3 runs with the default batch size"
    answers = [
        calls.must(calls.report(trial, metric=metric, current_epoch=epoch, energy=1e6 * epoch))
        for epoch, metric in ((1, 0.2), (2, 99.0))
    ]
    assert [answer["reason"] for answer in answers] == ["continue"] * 2
    job = calls.describe()
    assert (job["stage"], job["learnt_target"]) == ("Calibration", None)
    assert "3 are still to end" in job["message"]


def test_a_calibration_run_has_converged_when_it_has_taken_its_epochs(calls: Calls) -> None:
    register(calls)
    trial = calls.trial()
    answer = train(calls, trial, CURVES[0])
    assert (answer["stop_train"], answer["converged"], answer["reason"]) == (True, True, "calibrated")
    record = calls.record(trial)
    assert (record["status"], record["converged"], record["outcome_code"]) == ("Calibrated", None, "calibrated")
    assert "2 are still to end" in calls.describe()["message"]
    late = calls.must(calls.report(trial, metric=0.9, current_epoch=4, energy=40.0, time=4.0))
    assert (late["stop_train"], late["converged"]) == (True, True)


def test_a_training_that_ends_by_its_own_rules_calibrates_too(calls: Calls) -> None:
    register(calls, max_epochs=100)
    first, second = calls.trial(), calls.trial()
    train(calls, first, CURVES[0])
    ended = calls.must(calls.end(first, over=True, report_number=3))
    assert ended["verdict"] == {
        "stop_train": True,
        "converged": True,
        "message": "the target is learnt from 3 runs with the default batch size 16; 2 are still to end",
        "reason": "calibrated",
        "cost": 30.0,
    }
    assert calls.must(calls.end(second, over=True)) is None  # it has reported no metric
    assert [record["status"] for record in calls.records()] == ["Calibrated", "Failed"]


def test_a_run_that_breaks_or_is_ended_by_a_user_calibrates_nothing(calls: Calls) -> None:
    register(calls)
    trial = calls.trial()
    train(calls, trial, CURVES[0][:2])
    assert calls.must(calls.end(trial, reason="OSError: the disk is full")) is None
    assert calls.record(trial)["status"] == "Failed"
    assert calls.trial()["type"] == "Calibration"


def test_the_target_is_the_weakest_of_the_best_metrics(calls: Calls) -> None:
    register(calls)
    trials = calibrate(calls)
    job = calls.describe()
    assert job["learnt_target"] == {"target_metric": 0.8, "trials": [1, 2, 3]}
    assert job["spec"]["target_metric"] is None
    assert job["stage"] == "Pruning"
    records = [calls.record(trial) for trial in trials]
    assert {(record["status"], record["converged"], record["outcome_code"]) for record in records} == {
        ("Succeeded", True, "converged")
    }
    assert [(record["current_epoch"], record["energy"]) for record in records] == [(3, 30.0), (3, 30.0), (2, 20.0)]
    assert [(record["energy_after"], record["time_after"]) for record in records] == [
        (0.0, 0.0),
        (0.0, 0.0),
        (10.0, 1.0),
    ]
    assert records[2]["outcome"] == "metric 0.8 reached the learnt target 0.8 in epoch 2 at a cost of 20.0 J"


def test_the_runs_of_the_calibration_are_the_default_s_first_results(calls: Calls) -> None:
    register(calls)
    calibrate(calls)
    assert calls.trial()["batch_size"] == 8
    (of_default,) = (size for size in calls.describe()["batch_sizes"] if size["batch_size"] == 16)
    assert (of_default["runs"], of_default["converged"], of_default["mean_energy"]) == (3, 3, pytest.approx(80 / 3))


def test_later_runs_are_judged_by_the_target(calls: Calls) -> None:
    register(calls)
    calibrate(calls)
    assert train(calls, calls.trial(), [0.7, 0.8])["reason"] == "converged"
    failed = train(calls, calls.trial(), [0.7, 0.75, 0.79])
    assert (failed["reason"], failed["converged"]) == ("max_epochs", False)
    assert "has not reached the target 0.8" in failed["message"]


def test_a_training_that_ends_below_the_target_by_its_own_rules_has_failed(calls: Calls) -> None:
    register(calls)
    calibrate(calls)
    trial = calls.trial()
    train(calls, trial, [0.7, 0.75])
    verdict = calls.must(calls.end(trial, over=True, reason="fit ended after 2 epochs"))["verdict"]
    assert (verdict["reason"], verdict["converged"]) == ("training_over", False)
    assert verdict["message"] == "fit ended after 2 epochs; the run has not reached the learnt target 0.8"
    record = calls.record(trial)
    assert (record["status"], record["converged"], record["outcome_code"]) == ("Succeeded", False, "training_over")


@pytest.mark.parametrize(
    ("changes", "curves", "target"),
    [
        ({"target_tolerance": 0.1}, [[0.2, 0.7], [0.3, 0.8]], 0.65),
        ({"higher_is_better_metric": False}, [[3.0, 1.0], [2.0, 1.5]], 1.5),
        ({"higher_is_better_metric": False, "target_tolerance": 0.5}, [[3.0, 1.0], [2.0, 1.5]], 1.75),
        ({"calibration_runs": 1}, [[0.2, 0.7]], 0.7),
    ],
)
def test_a_tolerance_and_the_direction_count(
    calls: Calls, changes: dict[str, Any], curves: list[list[float]], target: float
) -> None:
    register(calls, **{"calibration_runs": 2, "max_epochs": 2} | changes)
    calibrate(calls, curves)
    assert calls.describe()["learnt_target"]["target_metric"] == pytest.approx(target)


def test_a_run_that_diverges_or_is_out_of_memory_is_no_calibration_run(calls: Calls) -> None:
    register(calls)
    calls.diverge(calls.trial())
    answer = calls.must(calls.report(calls.trial(), metric=None, out_of_memory=True))
    assert (answer["stop_train"], answer["converged"]) == (True, False)
    calibrate(calls)
    assert calls.describe()["learnt_target"]["trials"] == [3, 4, 5]
    assert calls.trial()["batch_size"] == 8, "the failed runs say nothing against the default"


def test_runs_that_still_run_when_the_target_is_learnt_are_judged_by_it(calls: Calls) -> None:
    register(calls, max_epochs=4)
    reached, late = calls.trial(), calls.trial()
    train(calls, reached, [0.1, 0.85, 0.3])
    train(calls, late, [0.1, 0.2])
    calibrate(calls, [[*curve, 0.0] for curve in CURVES])
    record = calls.record(reached)
    assert (record["converged"], record["current_epoch"], record["energy_after"]) == (True, 2, 10.0)
    assert calls.record(late)["status"] == "Dispatched"
    answer = calls.must(calls.report(late, metric=0.9, current_epoch=3, energy=30.0, time=3.0))
    assert answer["reason"] == "converged"


def test_runs_that_begin_at_once_learn_one_target(calls: Calls) -> None:
    register(calls)
    trials = [calls.trial() for _ in range(8)]
    assert {trial["type"] for trial in trials} == {"Calibration"}
    for trial in trials:
        train(calls, trial, [0.5, 0.6, 0.7])
    assert calls.describe()["learnt_target"] == {"target_metric": 0.7, "trials": [1, 2, 3]}
    assert {record["converged"] for record in calls.records()} == {True}


@pytest.mark.parametrize("policy", ["zeus", "gp-ucb"])
@pytest.mark.parametrize("seed", range(3))
def test_every_decision_follows_from_what_is_stored(calls: Calls, app: Flask, policy: str, seed: int) -> None:
    draw = random.Random(seed)
    register(calls, policy=policy, max_epochs=5)
    running: list[dict[str, Any]] = []
    for _ in range(60):
        if len(running) < 3:
            running.append(calls.trial())
        trial = running.pop(draw.randrange(len(running)))
        if draw.random() < 0.1:
            train(calls, trial, [0.1][: draw.randrange(2)])
            calls.must(calls.end(trial, over=draw.random() < 0.5))
        elif draw.random() < 0.05:
            calls.diverge(trial)
        else:
            level = draw.uniform(0.6, 1.0)
            train(calls, trial, [level * epoch / 5 for epoch in range(1, 6)])
    with app.app_context():
        number, differences = reading.replay_job("train")
    assert (number, differences) == (len(calls.records()), [])
    assert calls.describe()["learnt_target"] is not None


def test_a_changed_report_is_found_by_replay(calls: Calls, app: Flask) -> None:
    register(calls)
    calibrate(calls)
    with app.app_context():
        second = select(Trial.id).where(Trial.number == 2).scalar_subquery()
        db.session.execute(update(Report).where(Report.trial == second, Report.number == 3).values(metric=0.82))
        db.session.commit()
        _, differences = reading.replay_job("train")
    assert differences[0] == "learnt the target 0.80000000000000004, would learn 0.81999999999999995"


def test_a_target_that_has_become_out_of_reach_is_learnt_again(calls: Calls) -> None:
    register(calls, policy="gp-ucb")
    calibrate(calls)
    for _ in range(5):
        trial = calls.trial()
        assert trial["type"] != "Calibration"
        train(calls, trial, [0.1, 0.2, 0.3])
    job, belief = calls.describe(), calls.must(calls("GET", "/jobs/train/belief"))
    assert job["stage"] == "Calibration"
    assert "the next run begins to learn the target again" in job["message"]
    trial = calls.trial()
    assert trial["type"] == "Calibration"
    assert (belief["next_batch_size"], belief["next_reason"]) == (trial["batch_size"], trial["reason"])
    assert belief["cost_bound"] is None
    job = calls.describe()
    assert (job["stage"], job["learnt_target"]) == ("Calibration", None)
    assert calls.records()[-1]["exploration"] == 1
    entries = calls.must(calls("GET", "/audit?job_id=train"))["entries"]
    assert "the target is learnt again: the last 5 runs did not converge" in {entry["detail"] for entry in entries}


def test_a_job_that_would_be_stuck_learns_its_target_again(calls: Calls) -> None:
    register(calls, calibration_runs=1, batch_sizes=[16], num_pruning_rounds=2)
    calibrate(calls, CURVES[:1])
    train(calls, calls.trial(), [0.1, 0.2, 0.3])  # the second round of pruning
    job, belief = calls.describe(), calls.must(calls("GET", "/jobs/train/belief"))
    assert (job["stage"], belief["next_batch_size"]) == ("Calibration", 16)
    assert "the next run begins to learn the target again" in job["message"]
    assert calls.trial()["type"] == "Calibration"


def test_a_reset_learns_a_new_target(calls: Calls) -> None:
    register(calls)
    calibrate(calls)
    calls.must(calls.reset())
    assert calls.describe()["learnt_target"] is None
    calibrate(calls, [[0.5]] * 3)
    assert calls.describe()["stage"] == "Calibration"
    calibrate(calls, [[0.1, 0.2, 0.3]] * 3)
    assert calls.describe()["learnt_target"] == {"target_metric": 0.3, "trials": [7, 8, 9]}


def test_a_warm_start_needs_a_target(calls: Calls) -> None:
    register(calls, policy="gp-ucb")
    refused = calls.register(job_id="train-2", policy="gp-ucb", target_metric=None, warm_start_from="train")
    assert (refused.status, "warm_start_from requires a target_metric" in refused.text) == (422, True)
    refused = calls.register(job_id="train-2", policy="gp-ucb", target_metric=0.8, warm_start_from="train")
    assert "has not learnt its target yet" in refused.text
    calibrate(calls)
    calls.must(calls.register(job_id="train-2", policy="gp-ucb", target_metric=0.8, warm_start_from="train"))


def test_a_training_that_goes_on_after_a_calibration_may_report_what_it_uses(calls: Calls) -> None:
    register(calls)
    trial = calls.trial()
    train(calls, trial, CURVES[0])
    after = {"job_id": "train", "trial_number": 1, "energy": 5.0, "time": 0.5}
    calls.must(calls("POST", "/trials/after", after))
    calibrate(calls, CURVES[1:])
    assert calls.record(trial)["energy_after"] == 5.0


def test_the_pages_show_the_curves_and_where_the_target_comes_from(calls: Calls, client: FlaskClient) -> None:
    register(calls)
    assert "calibration" not in client.get("/admin/job/plots?job=train").json["figures"]
    calibrate(calls, CURVES[:1])
    trial = calls.trial()
    job, page = client.get("/admin/job/?job=train").text, client.get("/admin/trial/?job=train&number=2").text
    assert "<strong>Calibration:</strong>" in job
    assert "not learnt yet" in page
    assert [trace["name"] for trace in figure(client)] == ["trial 1"]
    train(calls, trial, CURVES[1])
    calibrate(calls, CURVES[2:])
    *curves, target = figure(client)
    assert [(trace["x"], trace["y"]) for trace in curves] == [([1, 2, 3], curve) for curve in CURVES]
    assert (target["name"], target["x"], target["y"]) == ("target", [0, 3], [0.8, 0.8])
    job, page = client.get("/admin/job/?job=train").text, client.get("/admin/trial/?job=train&number=2").text
    assert "The line is the learnt target, 0.8 or above, from trials 1, 2, 3." in job
    assert "0.8 or above, learnt" in page
    progress = client.get("/admin/trial/plots?job=train&number=2").json["figures"]["metric"]["data"]
    assert progress[1]["y"] == [0.8, 0.8]


def figure(client: FlaskClient) -> list[dict[str, Any]]:
    """Return the traces of the figure of the calibration."""
    return list(client.get("/admin/job/plots?job=train").json["figures"]["calibration"]["data"])


def test_a_run_that_asks_again_after_its_calibration_counts_on_from_its_last_report(calls: Calls) -> None:
    register(calls)
    trial = calls.trial(run_id="first")
    train(calls, trial, [0.1, 0.8, 0.85])
    again = calls.trial(run_id="first")
    assert (again["status"], again["converged"], again["energy"]) == ("Calibrated", True, 30.0)
    calibrate(calls, CURVES[:2])
    again = calls.trial(run_id="first")
    assert (again["converged"], again["energy"], again["energy_after"]) == (True, 30.0, 0.0)
    calls.must(calls("POST", "/trials/after", {"job_id": "train", "trial_number": 1, "energy": 2.0, "time": 0.2}))
    assert (calls.record(trial)["energy"], calls.record(trial)["energy_after"]) == (20.0, 12.0)
    assert calls.trial(run_id="first")["energy_after"] == 2.0


def test_a_lost_run_whose_reports_reached_the_target_has_converged(calls: Calls, app: Flask) -> None:
    register(calls, policy="gp-ucb")
    lost = calls.trial(run_id="lost")
    train(calls, lost, [0.2, 0.99])
    with app.app_context():
        db.session.execute(update(Trial).values(last_seen_at=datetime(2000, 1, 1)))
        db.session.execute(update(Job).values(oldest_seen_at=datetime(2000, 1, 1)))
        db.session.commit()
    calibrate(calls)
    record = calls.record(lost)
    assert (record["status"], record["converged"], record["energy"]) == ("Succeeded", True, 20.0)
    with app.app_context():
        assert reading.replay_job("train") == (4, [])


def test_the_end_of_a_lost_run_is_no_result(calls: Calls, app: Flask) -> None:
    register(calls, policy="gp-ucb")
    calibrate(calls)
    lost = calls.trial()
    train(calls, lost, [0.2])
    with app.app_context():
        db.session.execute(update(Trial).values(last_seen_at=datetime(2000, 1, 1)))
        db.session.execute(update(Job).values(oldest_seen_at=datetime(2000, 1, 1)))
        db.session.commit()
    train(calls, calls.trial(), [0.85])
    assert calls.must(calls.end(lost, over=True)) is None
    train(calls, calls.trial(), [0.85])
    with app.app_context():
        assert reading.replay_job("train") == (6, [])


def test_the_end_of_a_training_may_be_repeated(calls: Calls) -> None:
    register(calls)
    trial = calls.trial()
    train(calls, trial, [0.2, 0.7])
    first, again = (calls.must(calls.end(trial, over=True))["verdict"] for _ in range(2))
    assert [(verdict["converged"], verdict["reason"]) for verdict in (first, again)] == [(True, "calibrated")] * 2
    calibrate(calls)
    failed = calls.trial()
    train(calls, failed, [0.1])
    first, again = (calls.must(calls.end(failed, over=True))["verdict"] for _ in range(2))
    assert [(verdict["converged"], verdict["reason"]) for verdict in (first, again)] == [(False, "training_over")] * 2
