"""What Prometheus reads."""

import re
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from tests.calls import Calls
from tests.servers import GunicornServer


def samples(text: str) -> dict[tuple[str, ...], float]:
    """The samples of this program: name and values of the labels."""
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
    found = samples(calls("GET", "/metrics").text)
    assert found["zeus_bso_jobs",] == 1
    assert found["zeus_bso_trials", "Succeeded"] == 1
    assert found["zeus_bso_trials", "Failed"] == 1
    assert found["zeus_bso_trials", "Dispatched"] == 1


def test_an_id_in_a_path_is_no_label(calls: Calls) -> None:
    calls.register(job_id="train-secret")
    calls.describe("train-secret")
    text = calls("GET", "/metrics").text
    assert "secret" not in text
    assert "/jobs/<job_id:job_id>" in text


def test_the_calls_of_all_workers_are_counted_together(tmp_path: Path) -> None:
    folder = tmp_path / "prometheus"
    folder.mkdir()
    url = f"sqlite:///{tmp_path}/bso.db"
    with GunicornServer(url, tmp_path, workers=3, PROMETHEUS_MULTIPROC_DIR=str(folder)) as server:
        for _ in range(60):
            assert server.calls("GET", "/healthz").status == 200
        text = server.calls("GET", "/metrics").text
        pids = {int(found[1]) for file in folder.iterdir() if (found := re.search(r"_(\d+)\.db", file.name))}
        assert len(pids & set(server.worker_pids())) > 1
    assert samples(text)["zeus_bso_request_seconds_count", "GET", "/healthz", "200"] == 60
