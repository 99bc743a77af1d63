"""Servers that are told to stop or to restart under load: no call fails, because a client tries once more."""

import os
import signal
from collections.abc import Callable

import pytest

from lightning_bso import transport
from tests.faults.checks import assert_kept
from tests.faults.databases import others_are_long
from tests.faults.load import Load
from tests.faults.proxy import Proxy
from tests.servers import Server

Serve = Callable[..., Server]
LONGEST_S = 4.0
BACKOFF_S = transport.BACKOFF_S


@pytest.fixture(autouse=True)
def _long_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the client wait as it usually does: a stopping server may reset a second connection just after the first."""
    monkeypatch.setattr(transport, "BACKOFF_S", BACKOFF_S)


@others_are_long
def test_replicas_that_are_replaced_one_after_the_other_fail_no_call(database_url: str, serve: Serve) -> None:
    with serve(database_url) as old, serve(database_url) as new, Proxy(old.url) as proxy:
        with Load(proxy.url) as load:
            load.wait_for(20)
            proxy.url_behind = new.url
            old.stop()
            load.wait_for(20)
        assert load.unanswered == []
        assert load.longest_s < LONGEST_S
        assert_kept(load, old, new)


@pytest.mark.long
@others_are_long
def test_a_server_that_restarts_its_workers_fails_no_call(database_url: str, serve: Serve) -> None:
    with serve(database_url, cold=True) as server:  # so a worker that imported the program would take seconds
        with Load(server.url) as load:
            assert server.process is not None
            first = server.worker_pids()
            os.kill(server.process.pid, signal.SIGHUP)
            while set(first) & set(server.worker_pids()):
                load.wait_for(1)
            load.wait_for(10)
        assert load.unanswered == []
        assert load.longest_s < LONGEST_S
        assert_kept(load, server)
