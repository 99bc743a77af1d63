"""Batch sizes whose runs break are ruled out: behind the API, in every policy, and in a replay."""

import random
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import event

from backend.database.extensions import db
from backend.usecases import reading, runs
from backend.usecases.audit import COMMAND_LINE
from lightning_bso.wire import TrialRequest
from tests.backend.test_stored_summaries import delete_summaries
from tests.calls import Calls
from tests.databases import let_time_pass

ERROR = "RuntimeError: shape [{}, 3] is invalid at 0x{:x}"
LEASE_S = 3600.0

policies = pytest.mark.parametrize("policy", ["zeus", "gp-ucb"])


@pytest.fixture
def calls(calls: Calls) -> Calls:
    """Calls to a server whose job has a default that works: the next run gets another batch size."""
    calls.register(num_pruning_rounds=1)
    calls.converge(calls.trial())
    return calls


def crash(calls: Calls, trial: dict[str, Any], error: str = ERROR, **changes: Any) -> str | None:
    """End a trial by an error whose numbers never repeat, and return what the server says of its batch size."""
    dice = random.Random()
    text = error.format(dice.randrange(10**6), dice.randrange(2**40))
    answer = calls.must(calls.end(trial, **{"reason": text} | changes))
    return None if answer is None else str(answer["ruled_out"])


def shown(calls: Calls, batch_size: int) -> str | None:
    """Return why a batch size is ruled out, which the summary and the belief of the job must both say."""
    belief = calls.must(calls("GET", "/jobs/train/belief"))
    reasons = {
        size["ruled_out"]
        for answer in (calls.describe(), belief)
        for size in answer["batch_sizes"]
        if size["batch_size"] == batch_size
    }
    (reason,) = reasons
    return None if reason is None else str(reason)


@policies
def test_a_crash_loop_under_one_name_rules_the_batch_size_out(calls: Calls, policy: str) -> None:
    calls.register(job_id="train-loop", policy=policy)
    calls.converge(calls.trial("train-loop"))
    trial = calls.trial("train-loop", run_id="slurm-7")
    size = trial["batch_size"]
    assert size != 16
    assert crash(calls, trial) is None
    assert calls.trial("train-loop", run_id="slurm-7")["outcome"] is None  # it gets its trial back, once
    assert "ended in the same error twice before its first epoch: RuntimeError: shape" in str(crash(calls, trial))
    refused = calls.trial("train-loop", run_id="slurm-7")
    assert refused["trial_number"] == trial["trial_number"]
    assert f"Batch size {size} is ruled out until the job is reset: it ended in the same error" in refused["outcome"]
    assert refused["outcome"].startswith("RuntimeError: shape")
    others = {calls.trial("train-loop", run_id=f"slurm-7-{number}")["batch_size"] for number in range(2, 9)}
    assert size not in others
    assert calls.must(calls.report(trial))["reason"] == "ended"  # a late report does not revive the trial


@policies
def test_the_same_error_in_two_runs_rules_the_batch_size_out_until_a_reset(calls: Calls, policy: str) -> None:
    calls.register(job_id="train-two", policy=policy, num_pruning_rounds=1)
    calls.converge(calls.trial("train-two"))
    first = calls.trial("train-two")
    assert crash(calls, first) is None
    second = calls.trial("train-two")
    assert second["batch_size"] == first["batch_size"]
    assert crash(calls, second) is not None
    summary = {size["batch_size"]: size["ruled_out"] for size in calls.describe("train-two")["batch_sizes"]}
    assert "the same error twice" in summary[first["batch_size"]]
    assert calls.trial("train-two")["batch_size"] != first["batch_size"]
    calls.must(calls.reset("train-two"))
    summary = {size["batch_size"]: size["ruled_out"] for size in calls.describe("train-two")["batch_sizes"]}
    assert summary[first["batch_size"]] is None


def test_both_reading_calls_show_what_is_ruled_out(calls: Calls) -> None:
    trial = calls.trial()
    assert shown(calls, trial["batch_size"]) is None
    crash(calls, trial, unfit=True, error="no training step was run")
    assert shown(calls, trial["batch_size"]) == "cannot be trained with: no training step was run"


@pytest.mark.parametrize("over", [True, False])
def test_an_unfit_batch_size_is_ruled_out_at_once(calls: Calls, over: bool) -> None:
    trial = calls.trial(run_id="run")
    assert crash(calls, trial, unfit=True, over=over, error="too few rows") == "cannot be trained with: too few rows"
    assert "cannot be trained with" in calls.trial(run_id="run")["outcome"]
    assert calls.trial(run_id="run-2")["batch_size"] not in {trial["batch_size"], 16}
    assert crash(calls, trial, error="again") is not None  # a repeated call gets the same answer


def test_a_batch_size_that_has_converged_is_not_ruled_out_by_one_error(calls: Calls) -> None:
    first = calls.trial()
    calls.converge(first)
    while (again := calls.trial())["batch_size"] != first["batch_size"]:
        calls.converge(again)
    assert crash(calls, again, unfit=True, current_epoch=3) is None
    assert shown(calls, first["batch_size"]) is None


def test_an_unfit_default_just_ends(calls: Calls) -> None:
    calls.register(job_id="train-new")
    trial = calls.trial("train-new", run_id="run")
    for _ in range(3):
        assert crash(calls, trial, unfit=True) is None
        assert calls.trial("train-new", run_id="run")["outcome"] is None
    assert calls.trial("train-new")["batch_size"] == 16


def test_the_default_remains_when_everything_else_is_ruled_out(calls: Calls) -> None:
    for _ in range(2):
        crash(calls, calls.trial(), unfit=True)
    assert {calls.trial()["batch_size"] for _ in range(5)} == {16}


@pytest.mark.parametrize(
    "end",
    [{"over": True}, {"reason": None}, {"report_number": 0}, {"current_epoch": 1}],
    ids=["a regular end", "no reason", "an outdated attempt", "a later epoch"],
)
def test_other_ends_rule_nothing_out(calls: Calls, end: dict[str, Any]) -> None:
    for _ in range(3):
        trial = calls.trial()
        if "report_number" in end:
            calls.must(calls.report(trial, report_number=1, current_epoch=0))
        assert crash(calls, trial, **end) is None
        calls.must(calls.end(trial, over=True))


def test_a_user_s_end_rules_nothing_out(calls: Calls, app: Flask) -> None:
    for _ in range(3):
        trial = calls.trial()
        request = TrialRequest(
            job_id="train",
            batch_size=trial["batch_size"],
            trial_number=trial["trial_number"],
            reason="ended by user ada",
        )
        with app.app_context():
            assert runs.end(request, by=COMMAND_LINE, lease_s=LEASE_S, by_user=True) is None


def test_an_error_after_an_epoch_is_no_breakdown(calls: Calls) -> None:
    for _ in range(3):
        trial = calls.trial()
        calls.must(calls.report(trial))
        assert crash(calls, trial) is None


def test_the_batch_size_is_ruled_out_as_soon_as_another_works(calls: Calls) -> None:
    calls.register(job_id="train-young", policy="gp-ucb")
    default, other_default = calls.trial("train-young"), calls.trial("train-young")
    calls.must(calls.report(other_default, metric=None, current_epoch=0))
    trial = calls.trial("train-young", run_id="loop")
    assert trial["batch_size"] != 16
    for _ in range(2):
        assert crash(calls, trial) is None
        assert calls.trial("train-young", run_id="loop")["outcome"] is None
    calls.must(calls.report(default))
    assert crash(calls, trial) is not None
    assert "ruled out until the job is reset" in str(calls.trial("train-young", run_id="loop")["outcome"])


def test_nothing_is_ruled_out_while_nothing_works(calls: Calls) -> None:
    calls.register(job_id="train-bad")
    default = calls.trial("train-bad")
    calls.must(calls.report(default, metric=None, current_epoch=0))  # it diverges in its first epoch
    trial = calls.trial("train-bad", run_id="loop")
    for _ in range(3):
        assert crash(calls, trial) is None
        assert calls.trial("train-bad", run_id="loop")["outcome"] is None
    waiting = calls.trial("train-bad")
    assert waiting["batch_size"] == trial["batch_size"]


def test_a_lost_run_does_not_get_a_batch_size_back_that_has_been_ruled_out_since(
    calls: Calls, database_url: str
) -> None:
    lost = calls.trial(run_id="lost")
    let_time_pass(database_url, "train", lost["trial_number"], LEASE_S + 1)
    stand_in = calls.trial()
    assert stand_in["batch_size"] == lost["batch_size"]
    assert crash(calls, stand_in, unfit=True) is not None
    assert "ruled out until the job is reset" in calls.trial(run_id="lost")["outcome"]
    assert calls.record(lost)["outcome_code"] == "ended"


def test_only_after_a_repeated_error_does_a_call_search_all_trials(calls: Calls, app: Flask) -> None:
    searches: list[str] = []

    def listen(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        searches.extend([statement] if "DISTINCT trials.batch_size" in statement else [])

    with app.app_context():
        event.listen(db.engine, "before_cursor_execute", listen)
    crash(calls, calls.trial())
    again = calls.trial()
    calls.must(calls.report(again, current_epoch=0))
    assert not searches
    crash(calls, again)
    assert searches


def work(calls: Calls, dice: random.Random, steps: int) -> int:
    """Run a job of which some batch sizes break, in several runs at a time. Returns the number of trials."""
    running: dict[str, dict[str, Any]] = {}
    trials = set()
    for step in range(steps):
        if len(running) < 3:
            answer = calls.ask(run_id=f"run-{step}")
            if answer.status == 409:
                calls.must(calls.reset())
                continue
            running[f"run-{step}"] = trial = answer.body
            trials.add(trial["trial_number"])
        name = dice.choice(sorted(running))
        trial = running[name]
        size = trial["batch_size"]
        if size in (8, 64) or dice.random() < 0.1:
            crash(calls, trial, error=dice.choice(["ValueError: {}", "OSError: {}"]), unfit=dice.random() < 0.05)
            if dice.random() < 0.3 or calls.trial(run_id=name)["outcome"] is not None:
                del running[name]
        elif calls.must(
            calls.report(trial, metric=float(dice.random() < 0.8), energy=size + dice.random(), report_number=1)
        )["stop_train"]:
            del running[name]
        else:
            calls.must(calls.end(trial, over=True))
            del running[name]
        if dice.random() < 0.01:
            calls.must(calls.reset())
    return len(trials)


@policies
@pytest.mark.parametrize("seed", [1, 2])
def test_every_decision_follows_from_what_is_stored(calls: Calls, app: Flask, policy: str, seed: int) -> None:
    calls.must(calls.delete())
    calls.register(policy=policy, batch_sizes=[8, 16, 32, 64], num_pruning_rounds=1, beta_knob=4.0)
    number = work(calls, random.Random(seed), steps=150)
    assert any("the same error twice" in (size["ruled_out"] or "") for size in calls.describe()["batch_sizes"])
    with app.app_context():
        assert reading.replay_job("train") == (number, [])


@policies
def test_another_server_without_a_summary_decides_the_same(
    calls: Calls, policy: str, database_url: str, other_app: Callable[[], Calls]
) -> None:
    calls.must(calls.delete())
    calls.register(policy=policy, batch_sizes=[8, 16, 32, 64], num_pruning_rounds=1)
    work(calls, random.Random(3), steps=40)
    belief = calls.must(calls("GET", "/jobs/train/belief"))
    delete_summaries(database_url)
    other = other_app()
    assert other.must(other("GET", "/jobs/train/belief")) == belief
