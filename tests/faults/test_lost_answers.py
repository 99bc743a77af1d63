"""The answer lost after the commit, for every call: the repetition gets the right answer, and nothing is doubled."""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lightning_bso import BsoClient
from lightning_bso.wire import (
    AfterRequest,
    HeartbeatRequest,
    ProbedSize,
    ProbeRequest,
    RegisteredJobSpec,
    TrialRequest,
    Wire,
)
from tests import specs
from tests.calls import Calls
from tests.client.jobs import report_request
from tests.databases import dump
from tests.faults.checks import answered, assert_decided_well
from tests.faults.proxy import Proxy
from tests.servers import Server

JOB = RegisteredJobSpec.model_validate(specs.job(policy="gp-ucb"))


@pytest.fixture
def server(database_url: str, serve: Callable[..., Server]) -> Iterator[Server]:
    with serve(database_url) as running:
        yield running


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    with Proxy(server.url) as running:
        yield running


def test_the_client_repeats_each_call_whose_answer_is_lost(server: Server, proxy: Proxy) -> None:
    client, direct = BsoClient(proxy.url), BsoClient(server.url)

    def repeated(method: str, path: str, call: Callable[[], Wire | None], *rows: str) -> Any:
        """Make a call whose answer is lost. It must add one row to each of these tables, and a third call none."""
        before = _rows(server)
        proxy.lose(method, path)
        answer = call()
        assert proxy.lost.is_set()
        assert call() == answer
        assert _rows(server) - before == Counter(rows)
        return answer

    repeated("POST", "/jobs", lambda: client.register(JOB), "jobs", "audit")
    trial = repeated("POST", "/trials", lambda: client.ask("train", "run"), "trials", "audit")
    assert (trial.trial_number, trial.report_number) == (1, 0)
    sizes = [ProbedSize(batch_size=8, fits=True, epoch_time=1.0, epoch_energy=10.0, time=1.0, energy=10.0)]
    probe = ProbeRequest(job_id="train", trial_number=1, run_id="run", sizes=sizes)
    repeated("POST", "/trials/probe", lambda: client.probe(probe))
    assert not client.ask("train", "run").probe_wanted
    heartbeat = HeartbeatRequest(job_id="train", trial_number=1, run_id="run")
    repeated("POST", "/trials/heartbeat", lambda: client.heartbeat(heartbeat))
    first = repeated("POST", "/report", lambda: client.report(report_request(trial, run_id="run")), "reports")
    assert not first.stop_train
    totals = {"report_number": 2, "current_epoch": 2, "energy": 20.0, "time": 2.0, "metric": 1.0}
    last = repeated("POST", "/report", lambda: client.report(report_request(trial, run_id="run", **totals)), "reports")
    assert last.converged
    after = AfterRequest(job_id="train", trial_number=1, run_id="run", time=3.0, energy=30.0, metric=1.0)
    repeated("POST", "/trials/after", lambda: client.after(after))
    other = client.ask("train", "other")
    end = TrialRequest(
        job_id="train",
        batch_size=other.batch_size,
        trial_number=2,
        run_id="other",
        reason="ValueError: no such file",
        current_epoch=0,
        report_number=0,
        over=False,
    )
    repeated("PATCH", "/trials", lambda: client.end(end), "audit")
    records = direct.list_trials("train").trials
    assert [(record.status, record.energy, record.energy_after) for record in records] == [
        ("Succeeded", 20.0, 30.0),
        ("Failed", 0.0, 0.0),
    ]
    assert_decided_well(server, "train")
    assert set(answered(server)) <= {200, 201}


def test_a_reset_whose_answer_is_lost_may_be_repeated(server: Server, proxy: Proxy) -> None:
    calls = Calls.over_http(proxy.url)
    calls.register()
    calls.converge(calls.trial())
    proxy.lose("POST", "/jobs/train/reset")
    with pytest.raises(OSError, match=r".*"):
        calls.reset()
    assert calls.reset().status == 200
    assert calls.trial()["type"] == "Pruning"
    assert [record["converged"] for record in calls.records()] == [True, None]
    assert_decided_well(server, "train")
    assert set(answered(server)) <= {200, 201}


def test_a_deletion_whose_answer_is_lost_may_be_repeated(server: Server, proxy: Proxy) -> None:
    calls = Calls.over_http(proxy.url)
    calls.register()
    calls.register(job_id="train-other")
    calls.trial()
    proxy.lose("DELETE", "/jobs?job_id=train")
    with pytest.raises(OSError, match=r".*"):
        calls.delete()
    assert calls.delete().status == 404
    assert [job["job_id"] for job in calls.must(calls("GET", "/jobs"))["jobs"]] == ["train-other"]
    assert dump(server.database_url)["trials"] == []
    assert set(answered(server)) <= {200, 201, 404}


def _rows(server: Server) -> Counter[str]:
    """Count the rows of the tables. The others, `beliefs` and `job_days`, follow from them."""
    derived = ("beliefs", "job_days")
    return Counter({table: len(rows) for table, rows in dump(server.database_url).items() if table not in derived})
