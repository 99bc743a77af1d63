"""What a policy has learnt from ended trials is stored: a call reads that and what is new, and decides as before."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.backend.test_gp_ucb import recur, train
from tests.backend.test_gp_ucb import register as register_for_gp_ucb
from tests.calls import Calls
from tests.databases import connected, dump, revision

PAST_THE_PRUNING = 8
"""So many runs."""

pytestmark = pytest.mark.parametrize("policy", ["zeus", "gp-ucb"])


def register(calls: Calls, policy: str, job_id: str = "train", **changes: Any) -> None:
    """A job of a policy; all of them draw the same numbers."""
    register_for_gp_ucb(calls, job_id, policy=policy, num_pruning_rounds=1, mab_seed=3, **changes)


def forget(database_url: str) -> None:
    """Delete what has been learnt from ended trials, as a migration back and forth does."""
    with connected(database_url) as connection:
        connection.exec_driver_sql("DELETE FROM beliefs")


def make_unreadable(database_url: str, *, before: int) -> None:
    """Spoil the rows of all trials before one, so that a call that reads any of them fails."""
    with connected(database_url) as connection:
        connection.exec_driver_sql(f"UPDATE trials SET type = 'unreadable' WHERE number < {before}")


def test_whether_what_was_learnt_is_stored_never_shows(policy: str, calls: Calls, database_url: str) -> None:
    for job_id in ("train-stored", "train-forgotten"):
        register(calls, policy, job_id)
    by_stored = recur(calls, "train-stored", times=12)
    described = calls.describe("train-stored")
    by_forgotten = []
    for _ in range(12):
        forget(database_url)
        by_forgotten.append(calls.trial("train-forgotten"))
        forget(database_url)
        train(calls, by_forgotten[-1])
    for name in ("batch_size", "reason", "trial_number"):
        assert [trial[name] for trial in by_stored] == [trial[name] for trial in by_forgotten]
    outcomes = [[record["outcome"] for record in calls.records(job)] for job in ("train-stored", "train-forgotten")]
    assert outcomes[0] == outcomes[1]
    forget(database_url)
    seen_anew = calls.describe("train-forgotten")
    assert (seen_anew["message"], seen_anew["batch_sizes"]) == (described["message"], described["batch_sizes"])


def test_a_new_process_reads_neither_what_has_been_learnt_nor_lost_runs_that_tell_nothing(
    policy: str, calls: Calls, database_url: str, other_app: Callable[[], Calls]
) -> None:
    register(calls, policy)
    recur(calls, times=PAST_THE_PRUNING)
    calls.must(calls.end(calls.trial()))  # without a report
    cut_short = calls.trial()  # of a batch size that has ended
    calls.must(calls.report(cut_short, energy=10.0))
    calls.must(calls.end(cut_short))
    last = recur(calls, times=1)[0]["trial_number"]
    calls.trial(run_id="next")
    make_unreadable(database_url, before=last)
    assert any(words in other_app().trial()["reason"] for words in ("the best so far", "bandit:"))


def test_a_page_about_the_job_does_not_read_it_either(
    policy: str, calls: Calls, database_url: str, other_app: Callable[[], Calls]
) -> None:
    register(calls, policy)
    last = recur(calls, times=PAST_THE_PRUNING)[-1]["trial_number"]
    calls.trial(run_id="next")
    seen = calls.describe(), calls.must(calls("GET", "/jobs/train/belief"))
    make_unreadable(database_url, before=last)
    other = other_app()
    assert (other.describe(), other.must(other("GET", "/jobs/train/belief"))) == seen


def test_neither_does_it_after_a_reset_for_a_run_of_before(
    policy: str, calls: Calls, database_url: str, other_app: Callable[[], Calls]
) -> None:
    register(calls, policy)
    recur(calls, times=PAST_THE_PRUNING)
    old = calls.trial()
    calls.must(calls.reset())
    make_unreadable(database_url, before=old["trial_number"] - 1)
    assert calls.must(other_app().report(old, energy=1e6))["reason"] == "cost_bound"


def test_what_another_version_has_stored_is_learnt_anew_and_replaced(
    policy: str, calls: Calls, database_url: str
) -> None:
    register(calls, policy)
    recur(calls, times=PAST_THE_PRUNING)
    described, before = calls.describe(), dump(database_url)["beliefs"]
    with connected(database_url) as connection:
        connection.exec_driver_sql("""UPDATE beliefs SET told = '{"version": 0, "anything": []}'""")
    assert calls.describe() == described
    trial = calls.trial()
    after = dump(database_url)["beliefs"]
    assert [row[:2] for row in after] == [row[:2] for row in before]
    assert json.loads(after[0][2])["last"]["number"] == trial["trial_number"] - 1


def test_what_only_reads_stores_nothing(policy: str, calls: Calls, database_url: str) -> None:
    register(calls, policy)
    recur(calls, times=3)
    register(calls, policy, "train-other")
    forget(database_url)
    before = dump(database_url)
    calls.describe()
    calls.records()
    assert dump(database_url) == before
    register(calls, "gp-ucb", "train-warm", warm_start_from="train")
    assert dump(database_url)["beliefs"] == []


def test_a_database_restored_from_a_backup_is_believed_and_not_what_is_remembered(
    policy: str, calls: Calls, database_url: str
) -> None:
    register(calls, policy)
    recur(calls, times=2)
    then = calls.describe()
    backed_up = revision(database_url, "train")
    recur(calls, times=3)
    with connected(database_url) as connection:  # as the backup had it
        connection.exec_driver_sql("DELETE FROM trials WHERE number > 2")
        connection.exec_driver_sql(f"UPDATE jobs SET revision = {backed_up}")
    assert calls.describe() == then
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


def test_a_job_made_anew_under_its_old_name_knows_nothing(policy: str, calls: Calls) -> None:
    register(calls, policy)
    first = recur(calls, times=4)
    calls.must(calls.delete())
    register(calls, policy)
    assert [trial["reason"] for trial in recur(calls, times=4)] == [trial["reason"] for trial in first]
