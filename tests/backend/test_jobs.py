"""Jobs: reading and listing, deletion, stuck jobs and reset."""

from datetime import UTC, datetime, timedelta

import pytest

from tests.calls import Calls
from tests.databases import dump


def test_a_fresh_job_is_described(calls: Calls) -> None:
    spec = calls.must(calls.register())
    job = calls.describe()
    assert job["spec"] == spec
    assert (job["stage"], job["trials"], job["running"], job["best_batch_size"]) == ("Pruning", 0, 0, None)
    assert [size["batch_size"] for size in job["batch_sizes"]] == [8, 16, 32]
    assert all(size["runs"] == 0 and size["mean_cost"] is None for size in job["batch_sizes"])
    age = datetime.now(UTC) - datetime.fromisoformat(job["created_at"])
    assert timedelta(seconds=-1) < age < timedelta(minutes=1)


def test_what_a_job_knows_is_summed_up_by_batch_size(calls: Calls) -> None:
    calls.register(num_pruning_rounds=1)
    calls.must(calls.end(calls.trial()))
    calls.converge(calls.trial(), energy=10.0)
    explorer, concurrent = calls.trial(), calls.trial()
    calls.converge(explorer, energy=8.0)
    calls.converge(concurrent, energy=14.0)
    job = calls.describe()
    assert (job["trials"], job["running"]) == (4, 0)
    by_size = {size["batch_size"]: size for size in job["batch_sizes"]}
    assert (by_size[16]["runs"], by_size[16]["lost"], by_size[16]["mean_cost"]) == (2, 1, 12.0)
    assert by_size[16]["mean_energy"] == 12.0
    assert by_size[16]["mean_time"] == 1.0
    assert by_size[16]["mean_epochs"] == 1.0
    assert (by_size[8]["runs"], by_size[8]["mean_cost"]) == (1, 8.0)
    assert job["best_batch_size"] == 8


def test_a_batch_size_that_did_not_converge_is_ruled_out_in_words(calls: Calls) -> None:
    calls.register(batch_sizes=[4, 8, 16, 32], num_pruning_rounds=1)
    calls.converge(calls.trial())
    calls.diverge(calls.trial())
    calls.converge(calls.trial())
    job = calls.describe()
    ruled_out = {size["batch_size"]: size["ruled_out"] for size in job["batch_sizes"]}
    assert job["stage"] == "MAB"
    assert ruled_out[16] is None
    assert ruled_out[32] is None
    assert "trial 2" in ruled_out[8]
    assert "8 did not converge" in ruled_out[4]


def test_an_unknown_job_is_404(calls: Calls) -> None:
    for method, path in (
        *(("GET", "/jobs/nobody"), ("GET", "/jobs/nobody/trials")),
        *(("POST", "/jobs/nobody/reset"), ("DELETE", "/jobs?job_id=nobody")),
    ):
        answer = calls(method, path)
        assert answer.status == 404
        assert "'nobody'" in answer.message


def test_jobs_are_listed_newest_first(calls: Calls) -> None:
    for number in range(3):
        calls.register(job_id=f"train-{number}")
    calls.converge(calls.trial("train-1"))
    calls.trial("train-1")
    page = calls.must(calls("GET", "/jobs"))
    assert page["total"] == 3
    assert [job["job_id"] for job in page["jobs"]] == ["train-2", "train-1", "train-0"]
    assert [(job["trials"], job["running"]) for job in page["jobs"]] == [(0, 0), (2, 1), (0, 0)]
    assert {(job["gpu_model"], job["policy"]) for job in page["jobs"]} == {("A40", "zeus")}


def test_jobs_come_in_pages(calls: Calls) -> None:
    for number in range(5):
        calls.register(job_id=f"train-{number}")
    pages = [calls.must(calls("GET", f"/jobs?offset={offset}&limit=2")) for offset in (0, 2, 4, 6)]
    assert [page["total"] for page in pages] == [5] * 4
    listed = [[job["job_id"] for job in page["jobs"]] for page in pages]
    assert listed == [["train-4", "train-3"], ["train-2", "train-1"], ["train-0"], []]


def test_an_empty_server_lists_no_jobs(calls: Calls) -> None:
    assert calls.must(calls("GET", "/jobs")) == {"total": 0, "jobs": []}


def test_trials_come_in_pages_by_rising_number(calls: Calls) -> None:
    calls.register()
    for _ in range(5):
        calls.trial()
    pages = [calls.must(calls("GET", f"/jobs/train/trials?offset={offset}&limit=2")) for offset in (0, 2, 4, 6)]
    assert [page["total"] for page in pages] == [5] * 4
    assert [[trial["trial_number"] for trial in page["trials"]] for page in pages] == [[1, 2], [3, 4], [5], []]


@pytest.mark.parametrize(
    "query", ["offset=-1", "limit=0", "limit=1001", "limit=a", "offset=1.5", "limit=" + "9" * 5000]
)
@pytest.mark.parametrize("path", ["/jobs", "/jobs/train/trials"])
def test_a_page_that_cannot_be_is_refused(calls: Calls, path: str, query: str) -> None:
    calls.register()
    answer = calls("GET", f"{path}?{query}")
    assert answer.status == 422
    assert query.partition("=")[0] in answer.message


def test_deleting_a_job_deletes_all_that_it_recorded_and_nothing_else(calls: Calls, database_url: str) -> None:
    calls.register(job_id="train-2")
    calls.converge(calls.trial("train-2"))
    before = dump(database_url)
    calls.register(policy="gp-ucb")
    calls.converge(calls.trial())
    calls.trial()
    assert dump(database_url)["beliefs"]
    answer = calls.delete()
    assert (answer.status, answer.body) == (200, None)
    after = dump(database_url)
    assert "train" in {row[5] for row in after.pop("audit")}  # the audit log outlives the job
    assert after == {table: rows for table, rows in before.items() if table != "audit"}
    assert calls.ask().status == 400
    assert calls.delete().status == 404


def test_a_deleted_job_s_id_is_free_again(calls: Calls) -> None:
    calls.register()
    calls.trial(run_id="run")
    calls.delete()
    assert calls.register(max_epochs=5).status == 201
    assert calls.trial(run_id="run")["trial_number"] == 1


def get_stuck(calls: Calls) -> None:
    calls.register()
    for size in (16, 32):
        trial = calls.trial()
        assert trial["batch_size"] == size
        calls.diverge(trial)


def test_a_job_in_which_nothing_converges_says_what_to_change(calls: Calls, database_url: str) -> None:
    get_stuck(calls)
    before = dump(database_url)
    answers = [calls.ask(), calls.ask(run_id="run"), calls.ask()]
    assert [answer.status for answer in answers] == [409] * 3
    assert answers[0].text == answers[2].text
    for word in ("target_metric", "max_epochs", "reset"):
        assert word in answers[0].message
    assert dump(database_url) == before
    job = calls.describe()
    assert job["stage"] == "Stuck"
    assert "reset" in job["message"]
    assert all(size["ruled_out"] for size in job["batch_sizes"])


def test_a_reset_starts_a_new_exploration_and_keeps_the_history(calls: Calls) -> None:
    get_stuck(calls)
    answer = calls.reset()
    assert (answer.status, answer.body) == (200, None)
    job = calls.describe()
    assert (job["stage"], job["trials"]) == ("Pruning", 0)
    trial = calls.trial()
    assert (trial["batch_size"], trial["type"], trial["trial_number"]) == (16, "Pruning", 3)
    assert len(calls.records()) == 3


def test_after_a_reset_earlier_results_set_no_bound(calls: Calls) -> None:
    calls.register()
    calls.converge(calls.trial(), energy=1.0)
    calls.must(calls.reset())
    assert calls.must(calls.report(calls.trial(), energy=1000.0))["reason"] == "continue"


def test_a_run_from_before_a_reset_ends_as_it_would_have(calls: Calls) -> None:
    calls.register()
    calls.converge(calls.trial(), energy=10.0)
    early = calls.trial(run_id="early")
    calls.must(calls.reset())
    assert calls.trial(run_id="early")["trial_number"] == early["trial_number"]
    assert calls.must(calls.report(early, energy=20.5))["reason"] == "cost_bound"
    assert calls.describe()["trials"] == 0
