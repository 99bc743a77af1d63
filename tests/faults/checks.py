"""What must hold after every fault."""

import json
from collections import Counter, defaultdict
from statistics import fmean

import pytest

from backend.usecases import reading
from lightning_bso import BsoClient
from tests.backend.sums import kept_sums, sums_of
from tests.calls import Calls
from tests.databases import connected, in_application
from tests.faults.load import Load
from tests.servers import Server

REPEATED = 40
"""Number of acknowledged reports that are sent again."""


def assert_kept(load: Load, *servers: Server, unavailable: bool = False) -> None:
    """Check that nothing is lost or doubled, that the job goes on, and that the servers failed only as they may.

    Args:
        load: the trainings, which have ended.
        servers: the servers that answered. The last one still runs. Each logs all requests.
        unavailable: whether answers of 503 are right, because the database was away.
    """
    server = servers[-1]
    _assert_stored(load, server.database_url)
    _assert_repeatable(load, server)
    assert_decided_well(server, load.job.job_id or "")
    statuses = sum((answered(server) for server in servers), Counter[int]())
    assert statuses[200]
    assert {status for status in statuses if status >= 500} <= ({503} if unavailable else set()), statuses


def assert_decided_well(server: Server, job_id: str) -> None:
    """Check that a job goes on, and that all decisions on it and its kept sums follow from what is stored."""
    calls = server.calls
    trial = calls.trial(job_id)
    calls.must(calls.report(trial, energy=100.0, metric=1.0))
    spec = BsoClient(server.url).describe(job_id).spec.model_dump()
    assert kept_sums(server.database_url, job_id) == sums_of(spec, calls.records(job_id))
    with in_application(server.database_url):
        assert reading.replay_job(job_id) == (trial["trial_number"], [])


def answered(server: Server) -> Counter[int]:
    """Count the answers of a server by status. It must log at the level INFO, as JSON."""
    lines = (json.loads(line) for line in server.read_log().splitlines() if line.startswith("{"))
    return Counter(line["status"] for line in lines if line["event"] == "request")


def is_ready(calls: Calls) -> bool:
    """Whether a server says that it is ready."""
    return calls("GET", "/readyz").status == 200


def _assert_stored(load: Load, database_url: str) -> None:
    with connected(database_url) as connection:
        trials = connection.exec_driver_sql("SELECT run_id, number, status FROM trials ORDER BY number").all()
        reports = connection.exec_driver_sql(
            "SELECT t.run_id, r.number, r.energy_j FROM reports r JOIN trials t ON t.id = r.trial"
        ).all()
    assert [number for _, number, _ in trials] == list(range(1, len(trials) + 1))
    assert {run: number for run, number, _ in trials} == {run: trial.trial_number for run, trial in load.trials.items()}
    assert {status for *_, status in trials} == {"Succeeded"}
    acknowledged = [(run, request.report_number, request.energy) for run, request, _ in load.reports]
    assert sorted(map(tuple, reports)) == sorted(acknowledged)
    costs = defaultdict(list)
    for _, request, answer in load.reports:
        if answer.converged:
            costs[request.batch_size].append(request.energy)
    job = BsoClient(load.urls[-1]).describe(load.job.job_id or "")
    assert {size.batch_size: size.mean_cost for size in job.batch_sizes if size.runs} == {
        size: pytest.approx(fmean(of_size)) for size, of_size in costs.items()
    }


def _assert_repeatable(load: Load, server: Server) -> None:
    client = BsoClient(server.url)
    for _, request, answer in load.reports[-REPEATED:]:
        assert client.report(request) == answer
    assert {run: client.ask(trial.job_id, run).trial_number for run, trial in list(load.trials.items())[-5:]} == {
        run: trial.trial_number for run, trial in list(load.trials.items())[-5:]
    }
