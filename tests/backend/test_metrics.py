"""The metrics for Prometheus."""

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from tests.calls import Calls
from tests.databases import let_time_pass
from tests.servers import Server


def samples(text: str) -> dict[tuple[str, ...], float]:
    """Return the values of this program's samples, by name and labels."""
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("zeus_bso")
    }


def test_jobs_and_trials_are_counted_in_the_database(calls: Calls) -> None:
    calls.register()
    calls.converge(calls.trial())
    calls.end(calls.trial())
    calls.trial()
    values = samples(calls("GET", "/metrics").text)
    assert values["zeus_bso_jobs",] == 1
    assert values["zeus_bso_trials", "Succeeded"] == 1
    assert values["zeus_bso_trials", "Failed"] == 1
    assert values["zeus_bso_trials", "Dispatched"] == 1


def test_jobs_whose_last_runs_failed_or_ended_without_a_verdict_are_counted(calls: Calls) -> None:
    for job_id in ("failing", "crashing", "sound"):
        calls.register(job_id=job_id, job_id_prefix=job_id, num_pruning_rounds=0)
        for _ in range(3):
            trial = calls.trial(job_id)
            match job_id:
                case "failing":
                    calls.diverge(trial)
                case "crashing":
                    calls.end(trial, reason="ValueError")
                case _:
                    calls.converge(trial)
    values = samples(calls("GET", "/metrics").text)
    assert values["zeus_bso_jobs_for_attention", "failed"] == 1
    assert values["zeus_bso_jobs_for_attention", "without a verdict"] == 1


def test_savings_and_recommended_batch_sizes_are_exposed(calls: Calls) -> None:
    calls.register(policy="gp-ucb", beta_knob=None, eta_knob=0.5)
    for energy in (10.0, 4.0):
        calls.converge(calls.trial(), energy=energy)
    values = samples(calls("GET", "/metrics").text)
    saved = calls.must(calls("GET", "/jobs/train/savings"))
    for name in ("energy", "cost"):
        assert values[f"zeus_bso_saved_{name}_joules",] == saved["against_default"][name]
        assert values[f"zeus_bso_spent_{name}_joules",] == saved["spent"][name]
    assert values["zeus_bso_recommended_batch_size", "train"] == calls.describe()["recommended_batch_size"]


def test_rows_of_failures_and_of_ends_without_a_verdict_and_overdue_runs_are_exposed(
    calls: Calls, database_url: str
) -> None:
    calls.register(num_pruning_rounds=0)
    for _ in range(2):
        calls.diverge(calls.trial())
    for _ in range(4):
        calls.end(calls.trial(), reason="ValueError")
    let_time_pass(database_url, "train", calls.trial()["trial_number"], 48 * 3600)
    values = samples(calls("GET", "/metrics").text)
    assert values["zeus_bso_failures_in_a_row",] == 2
    assert values["zeus_bso_crashes_in_a_row",] == 4
    assert values["zeus_bso_overdue_trials",] == 1


def test_an_id_in_a_path_is_no_label(calls: Calls) -> None:
    calls.register(job_id="train-secret")
    calls.describe("train-secret")
    text = calls("GET", "/metrics").text
    assert "secret" not in text
    assert "/jobs/<job_id:job_id>" in text


def test_unknown_methods_and_paths_are_not_counted(calls: Calls) -> None:
    for number in range(5):
        assert calls(f"MADEUP{number}", "/jobs").status == 405
        assert calls("GET", f"/madeup{number}").status == 404
    assert "MADEUP" not in calls("GET", "/metrics").text.upper()


def test_the_calls_of_all_workers_are_counted_together(tmp_path: Path) -> None:
    folder = tmp_path / "prometheus"
    folder.mkdir()
    url = f"sqlite:///{tmp_path}/bso.db"
    # A cold start, because prometheus_client reads the variable during its import.
    with Server(url, tmp_path, workers=3, cold=True, PROMETHEUS_MULTIPROC_DIR=str(folder)) as server:
        call_count = 0
        with ThreadPoolExecutor(8) as pool:
            while len(_workers_that_counted(folder) & set(server.worker_pids())) < 2:
                assert call_count < 10_000, "one worker answers all calls"
                statuses = list(pool.map(lambda _: server.calls("GET", "/healthz").status, range(40)))
                assert set(statuses) == {200}
                call_count += len(statuses)
        text = server.calls("GET", "/metrics").text
    assert samples(text)["zeus_bso_request_seconds_count", "GET", "/healthz", "200"] == call_count


def _workers_that_counted(folder: Path) -> set[int]:
    return {int(match[1]) for file in folder.iterdir() if (match := re.search(r"_(\d+)\.db", file.name))}
