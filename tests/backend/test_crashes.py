"""Processes killed under load: every acknowledged call is stored, and repeated calls get the same answers."""

import os
import signal
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from threading import Event, Lock
from typing import Any

from tests.calls import Answer, Calls
from tests.databases import connected, dump
from tests.servers import GunicornServer, WaitressServer

RUNS = 6
REPORTS = 40


@dataclass
class Load:
    """Runs that ask and report. Each call is repeated until it gets an answer."""

    calls: Calls
    acknowledged: dict[tuple[str, int], Answer] = field(default_factory=dict)
    """Answers by the name of the run and the number of the report; 0: the ask."""
    repeated: int = 0
    under_way: Event = field(default_factory=Event)
    up: Event = field(default_factory=Event)
    _lock: Lock = field(default_factory=Lock)

    def start(self, pool: ThreadPoolExecutor) -> "list[Future[None]]":
        """Start all runs."""
        self.up.set()
        return [pool.submit(self._train, f"run-{number}") for number in range(RUNS)]

    def assert_repeatable(self) -> None:
        """Send every acknowledged call again. It must get the same answer."""
        for (run, number), answer in self.acknowledged.items():
            again = self._send(run, number)
            assert again.status == 200
            if number:
                assert again.text == answer.text
            else:
                assert self._assignment(again) == self._assignment(answer)

    def _train(self, run: str) -> None:
        for number in range(REPORTS + 1):
            answer = self._until_answered(lambda number=number: self._send(run, number))  # type: ignore[misc]
            assert answer.status == 200, answer.text
            with self._lock:
                self.acknowledged[run, number] = answer
                if len(self.acknowledged) >= RUNS * REPORTS // 4:
                    self.under_way.set()

    def _send(self, run: str, number: int) -> Answer:
        if number == 0:
            return self.calls.ask("train", run)
        totals = {"energy": float(number), "time": float(number), "current_epoch": number}
        return self.calls.report(self.acknowledged[run, 0].body, report_number=number, **totals)

    def _until_answered(self, call: Callable[[], Answer]) -> Answer:
        while True:
            try:
                return call()
            except (OSError, HTTPException):
                with self._lock:
                    self.repeated += 1
                assert self.up.wait(60)

    @staticmethod
    def _assignment(answer: Answer) -> dict[str, Any]:
        return {name: answer.body[name] for name in ("job_id", "trial_number", "batch_size", "type")}


def assert_all_stored(load: Load, database_url: str) -> None:
    numbers = {run: answer.body["trial_number"] for (run, number), answer in load.acknowledged.items() if number == 0}
    assert sorted(numbers.values()) == list(range(1, RUNS + 1))
    stored = dump(database_url)
    assert len(stored["trials"]) == RUNS
    assert len(stored["reports"]) == RUNS * REPORTS
    records = {record["run_id"]: record for record in load.calls.records()}
    assert {run: record["trial_number"] for run, record in records.items()} == numbers
    assert {record["energy"] for record in records.values()} == {float(REPORTS)}


def test_a_worker_killed_under_load_loses_nothing(database_url: str, tmp_path: Path) -> None:
    with GunicornServer(database_url, tmp_path, workers=4) as server, ThreadPoolExecutor(RUNS) as pool:
        server.calls.register(max_epochs=REPORTS + 1)
        load = Load(server.calls)
        runs = load.start(pool)
        assert load.under_way.wait(60)
        for pid in server.worker_pids()[:2]:
            os.kill(pid, signal.SIGKILL)
        for run in runs:
            run.result(timeout=120)
        assert_all_stored(load, database_url)
        load.assert_repeatable()
        assert_all_stored(load, database_url)


def test_a_server_killed_under_load_loses_nothing(database_url: str, tmp_path: Path) -> None:
    with GunicornServer(database_url, tmp_path, workers=4) as server, ThreadPoolExecutor(RUNS) as pool:
        server.calls.register(max_epochs=REPORTS + 1)
        load = Load(server.calls)
        runs = load.start(pool)
        assert load.under_way.wait(60)
        load.up.clear()
        server.kill()
        acknowledged = dict(load.acknowledged)
        with connected(database_url) as connection:
            stored = connection.exec_driver_sql("SELECT COUNT(*) FROM reports").scalar_one()
        assert stored >= sum(number > 0 for _, number in acknowledged)
        server.start()
        load.up.set()
        for run in runs:
            run.result(timeout=120)
        assert load.repeated > 0
        assert_all_stored(load, database_url)
        load.assert_repeatable()


def test_a_restarted_server_continues_where_it_was(database_url: str, tmp_path: Path) -> None:
    with WaitressServer(database_url, tmp_path) as server:
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


def test_a_server_killed_while_a_job_learns_its_target_learns_it_once(database_url: str, tmp_path: Path) -> None:
    with WaitressServer(database_url, tmp_path) as server:
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
