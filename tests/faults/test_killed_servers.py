"""Servers killed under load: every acknowledged call is stored, and repeated calls get the same answers."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.checks import assert_kept
from tests.faults.databases import others_are_long
from tests.faults.load import Load
from tests.servers import Server

Serve = Callable[..., Server]


@others_are_long
def test_workers_killed_under_load_lose_nothing(database_url: str, serve: Serve) -> None:
    with serve(database_url) as server:
        with Load(server.url) as load:
            for pid in server.worker_pids():
                os.kill(pid, signal.SIGKILL)
                load.wait_for(10)
        assert_kept(load, server)


@pytest.mark.parametrize("times", [2, pytest.param(10, marks=pytest.mark.long)])
def test_a_server_killed_under_load_loses_nothing(database_url: str, serve: Serve, times: int) -> None:
    with serve(database_url) as server:
        with Load(server.url) as load:
            for _ in range(times):
                server.kill()
                server.start()
                load.wait_for(20)
        assert load.unanswered
        assert_kept(load, server)


def test_a_restarted_server_continues_where_it_was(database_url: str, tmp_path: Path) -> None:
    with Server(database_url, tmp_path) as server:
        calls = server.calls
        calls.register(mab_seed=None)
        trial = calls.trial(run_id="run")
        first = calls.must(calls.report(trial, report_number=1))
        port = server.port
        server.kill()
        server.start()
        assert server.port == port
        assert calls.register(mab_seed=None).status == 200
        again = calls.trial(run_id="run")
        assert again == trial | {"time": 1.0, "energy": 10.0, "current_epoch": 1, "report_number": 1}
        assert calls.must(calls.report(trial, report_number=1)) == first
        assert calls.trial(run_id="other")["trial_number"] == 2
        assert server.stop() == 0


@others_are_long
def test_a_server_killed_while_a_job_learns_its_target_learns_it_once(database_url: str, tmp_path: Path) -> None:
    with Server(database_url, tmp_path) as server:
        calls = server.calls
        calls.register(target_metric=None, max_epochs=2)
        trials = [calls.trial(run_id=f"run-{number}") for number in range(3)]
        for epoch in (1, 2):
            for trial, metric in zip(trials, (0.9, 0.8, 0.7), strict=True):
                totals = {"energy": 10.0 * epoch, "time": 1.0 * epoch, "current_epoch": epoch, "report_number": epoch}
                report = totals | {"metric": metric * epoch / 2}
                server.kill()
                server.start()
                first = calls.must(calls.report(trial, **report))
                server.kill()
                server.start()
                assert calls.must(calls.report(trial, **report)) == first
        assert [first["reason"], first["converged"]] == ["calibrated", True]
        assert calls.describe()["learnt_target"] == {"target_metric": 0.7, "trials": [1, 2, 3]}
        assert [(record["converged"], record["energy"]) for record in calls.records()] == [(True, 20.0)] * 3
