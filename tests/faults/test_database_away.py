"""A database that goes away and comes back: callers get 503 meanwhile, and nothing needs a restart."""

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress

import pytest
import requests

from tests.databases import DatabaseServer
from tests.faults.checks import assert_kept, is_ready
from tests.faults.load import Load
from tests.servers import Server

Serve = Callable[..., Server]


@pytest.mark.parametrize("away_s", [2.0, pytest.param(60.0, marks=pytest.mark.long)])
def test_while_the_database_is_away_the_server_says_so_and_then_goes_on(
    own_database_server: Callable[..., DatabaseServer], serve: Serve, away_s: float
) -> None:
    database = own_database_server()
    with serve(database.database()) as server:
        with Load(server.url) as load:
            database.stop(signal.SIGKILL)
            back_at = time.monotonic() + away_s
            while time.monotonic() < back_at or not load.unanswered:
                answers = [
                    requests.get(f"{server.url}/readyz", timeout=30),
                    requests.get(f"{server.url}/jobs/batch_size", {"job_id": "train"}, timeout=30),
                ]
                for answer in answers:
                    assert answer.status_code == 503, answer.text
                    assert int(answer.headers["Retry-After"]) > 0
                assert server.calls("GET", "/healthz").status == 200
            database.start()
            load.wait_for(20)
            assert is_ready(server.calls)
        assert_kept(load, server, unavailable=True)


@pytest.mark.parametrize("times", [1, pytest.param(10, marks=pytest.mark.long)])
def test_a_database_that_restarts_under_load_loses_nothing(
    own_database_server: Callable[..., DatabaseServer], serve: Serve, times: int
) -> None:
    database = own_database_server()
    with serve(database.database()) as server:
        with Load(server.url) as load:
            for _ in range(times):
                database.stop(signal.SIGKILL)
                database.start()
                load.wait_for(20)
        assert_kept(load, server, unavailable=True)


def test_a_worker_that_dies_while_the_database_is_away_is_replaced(
    own_database_server: Callable[..., DatabaseServer], serve: Serve
) -> None:
    database = own_database_server()
    with serve(database.database()) as server:
        database.stop(signal.SIGKILL)
        killed, _ = before = server.worker_pids()
        os.kill(killed, signal.SIGKILL)
        while len(after := server.worker_pids()) < 2 or set(after) == set(before):
            with suppress(OSError):
                server.calls("GET", "/healthz")
        database.start()
        while server.calls("GET", "/readyz").status != 200:
            pass
        assert server.calls.register().status == 201


def test_connections_that_the_database_drops_under_load_are_replaced(
    own_database_server: Callable[..., DatabaseServer], serve: Serve
) -> None:
    database = own_database_server()
    url = database.database()
    with serve(url) as server:
        with Load(server.url) as load:
            for _ in range(20):
                for number in database.connections(url):
                    database.drop_connection(number)
                load.wait_for(5)
        assert load.unanswered == []
        assert_kept(load, server)


def test_connections_that_the_database_drops_because_they_are_idle_are_replaced(
    own_database_server: Callable[..., DatabaseServer], serve: Serve
) -> None:
    database = own_database_server(idle_timeout_s=1)
    url = database.database()
    with serve(url) as server:
        with Load(server.url) as load:
            load.wait_for(10)
        while database.connections(url):
            time.sleep(0.1)
        assert_kept(load, server)
