"""Stored summaries of ended trials: a call reads the summary and newer trials, and decides as without a summary."""

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text

from backend.core import stored
from tests.backend.test_gp_ucb import recur, train
from tests.backend.test_gp_ucb import register as register_for_gp_ucb
from tests.calls import Calls
from tests.databases import connected, dump, revision

RUNS_BEYOND_PRUNING = 8
"""Number of runs after which the pruning has ended."""

pytestmark = pytest.mark.parametrize("policy", ["zeus", "gp-ucb"])


def register(calls: Calls, policy: str, job_id: str = "train", **changes: Any) -> None:
    """Register a job with a policy. All these jobs draw the same random numbers."""
    register_for_gp_ucb(calls, job_id, policy=policy, num_pruning_rounds=1, mab_seed=3, **changes)


def delete_summaries(database_url: str) -> None:
    """Delete the stored summaries of ended trials, as a downgrade and upgrade of the schema does."""
    with connected(database_url) as connection:
        connection.exec_driver_sql("DELETE FROM beliefs")


def make_unreadable(database_url: str, *, before: int) -> None:
    """Make the trials before a number unreadable, so that a call that reads one of them fails."""
    with connected(database_url) as connection:
        connection.exec_driver_sql(f"UPDATE trials SET type = 'unreadable' WHERE number < {before}")


def test_stored_summaries_do_not_change_decisions(policy: str, calls: Calls, database_url: str) -> None:
    for job_id in ("train-stored", "train-deleted"):
        register(calls, policy, job_id)
    with_summary = recur(calls, "train-stored", times=12)
    described = calls.describe("train-stored")
    without_summary = []
    for _ in range(12):
        delete_summaries(database_url)
        without_summary.append(calls.trial("train-deleted"))
        delete_summaries(database_url)
        train(calls, without_summary[-1])
    for name in ("batch_size", "reason", "trial_number"):
        assert [trial[name] for trial in with_summary] == [trial[name] for trial in without_summary]
    outcomes = [[record["outcome"] for record in calls.records(job)] for job in ("train-stored", "train-deleted")]
    assert outcomes[0] == outcomes[1]
    delete_summaries(database_url)
    recomputed = calls.describe("train-deleted")
    assert (recomputed["message"], recomputed["batch_sizes"]) == (described["message"], described["batch_sizes"])


def test_a_new_process_reads_neither_summarized_trials_nor_lost_runs_that_do_not_count(
    policy: str, calls: Calls, database_url: str, other_app: Callable[[], Calls]
) -> None:
    register(calls, policy)
    recur(calls, times=RUNS_BEYOND_PRUNING)
    calls.must(calls.end(calls.trial()))  # without a report
    ended_early = calls.trial()  # its batch size already has a result
    calls.must(calls.report(ended_early, energy=10.0))
    calls.must(calls.end(ended_early))
    last = recur(calls, times=1)[0]["trial_number"]
    calls.trial(run_id="next")
    make_unreadable(database_url, before=last)
    assert any(words in other_app().trial()["reason"] for words in ("the best so far", "bandit:"))


def test_reading_a_job_does_not_read_summarized_trials(
    policy: str, calls: Calls, database_url: str, other_app: Callable[[], Calls]
) -> None:
    register(calls, policy)
    last = recur(calls, times=RUNS_BEYOND_PRUNING)[-1]["trial_number"]
    calls.trial(run_id="next")
    answers = calls.describe(), calls.must(calls("GET", "/jobs/train/belief"))
    make_unreadable(database_url, before=last)
    other = other_app()
    assert (other.describe(), other.must(other("GET", "/jobs/train/belief"))) == answers


def test_a_report_of_a_run_from_before_a_reset_does_not_read_summarized_trials(
    policy: str, calls: Calls, database_url: str, other_app: Callable[[], Calls]
) -> None:
    register(calls, policy)
    recur(calls, times=RUNS_BEYOND_PRUNING)
    old = calls.trial()
    calls.must(calls.reset())
    make_unreadable(database_url, before=old["trial_number"] - 1)
    assert calls.must(other_app().report(old, energy=1e6))["reason"] == "cost_bound"


def test_a_server_of_an_earlier_release_beside_this_one_changes_no_verdict(
    policy: str, calls: Calls, database_url: str
) -> None:
    """It writes a summary of its own version, and knows nothing of a reference cost."""
    register(calls, policy)
    recur(calls, times=RUNS_BEYOND_PRUNING)
    trial = calls.trial()
    bound_j = calls.must(calls("GET", "/jobs/train/belief"))["cost_bound"]
    with connected(database_url) as connection:
        connection.execute(text("""UPDATE beliefs SET told = '{"version": 3, "last": {}}'"""))
    assert not calls.must(calls.report(trial, energy=0.5 * bound_j))["stop_train"]
    assert calls.must(calls.report(trial, energy=2.0 * bound_j))["reason"] == "cost_bound"


def test_a_summary_of_another_version_is_recomputed_and_replaced(policy: str, calls: Calls, database_url: str) -> None:
    register(calls, policy)
    recur(calls, times=RUNS_BEYOND_PRUNING)
    described, before = calls.describe(), dump(database_url)["beliefs"]
    with connected(database_url) as connection:
        connection.exec_driver_sql("""UPDATE beliefs SET told = '{"version": 0, "anything": []}'""")
    assert calls.describe() == described
    trial = calls.trial()
    after = dump(database_url)["beliefs"]
    assert [row[:2] for row in after] == [row[:2] for row in before]
    assert json.loads(after[0][2])["last"]["number"] == trial["trial_number"] - 1


def test_read_calls_store_no_summary(policy: str, calls: Calls, database_url: str) -> None:
    register(calls, policy)
    recur(calls, times=3)
    register(calls, policy, "train-other")
    delete_summaries(database_url)
    before = dump(database_url)
    calls.describe()
    calls.records()
    assert dump(database_url) == before
    register(calls, "gp-ucb", "train-warm", warm_start_from="train")
    (row,) = dump(database_url)["beliefs"]
    assert row[2] == stored.NOTHING


def test_a_database_restored_from_a_backup_counts_and_a_later_summary_does_not(
    policy: str, calls: Calls, database_url: str
) -> None:
    register(calls, policy)
    recur(calls, times=2)
    described = calls.describe()
    backed_up = revision(database_url, "train")
    recur(calls, times=3)
    with connected(database_url) as connection:  # restore the trials of the backup
        connection.exec_driver_sql("DELETE FROM trials WHERE number > 2")
        connection.exec_driver_sql(f"UPDATE jobs SET revision = {backed_up}")
    assert calls.describe() == described
    assert calls.trial()["trial_number"] == 3


def test_two_servers_in_turn_decide_as_one_does(
    policy: str, calls: Calls, database_url: str, other_app: Callable[[], Calls]
) -> None:
    servers = [calls, other_app()]
    for job_id in ("train-by-one", "train-by-two"):
        register(calls, policy, job_id)
    by_one = recur(calls, "train-by-one", times=12)
    by_two = [recur(servers[number % 2], "train-by-two", times=1)[0] for number in range(12)]
    assert [trial["reason"] for trial in by_one] == [trial["reason"] for trial in by_two]


def test_a_job_created_again_under_its_old_name_starts_from_nothing(policy: str, calls: Calls) -> None:
    register(calls, policy)
    first = recur(calls, times=4)
    calls.must(calls.delete())
    register(calls, policy)
    assert [trial["reason"] for trial in recur(calls, times=4)] == [trial["reason"] for trial in first]


DAMAGES = ["{}", "[]", "1", "null", "garbage", "{" * 5000, '{"version": 4}', '{"version": 4, "last": null}', "NaN"]


@pytest.mark.parametrize("damage", [*DAMAGES, "cut", "nulls"], ids=lambda damage: damage[:30])
def test_a_damaged_summary_is_learnt_again(
    policy: str, damage: str, calls: Calls, database_url: str, other_app: Callable[[], Calls]
) -> None:
    register(calls, policy)
    recur(calls, times=RUNS_BEYOND_PRUNING)
    described, (before,) = calls.describe(), dump(database_url)["beliefs"]
    damaged = {"cut": before[2][:-10], "nulls": re.sub(r"\d+\.\d+", "null", before[2])}.get(damage, damage)
    with connected(database_url) as connection:
        connection.execute(text("UPDATE beliefs SET told = :damaged"), {"damaged": damaged})
    assert calls.describe() == described
    trial = other_app().trial(run_id="next")
    assert dump(database_url)["beliefs"] == [before]
    with connected(database_url) as connection:
        connection.execute(text("UPDATE beliefs SET told = :damaged"), {"damaged": damaged})
    assert not calls.must(calls.report(trial, energy=0.1))["stop_train"]
    assert dump(database_url)["beliefs"] == [before]
    assert calls.must(calls.report(trial, energy=1e9))["reason"] == "cost_bound"
