"""Servers that are told to stop or to restart under load: no call fails, because a client tries once more."""

import os
import signal
from collections.abc import Callable

import pytest

from tests.faults.checks import assert_kept
from tests.faults.load import Load
from tests.servers import GunicornServer

Serve = Callable[..., GunicornServer]
WORKERS = pytest.mark.parametrize("options", [(), ("--threads=4",)], ids=["processes", "threads"])
LONGEST_S = 4.0


@WORKERS
def test_replicas_that_are_replaced_one_after_the_other_fail_no_call(
    database_url: str, serve: Serve, options: tuple[str, ...]
) -> None:
    old, new = (serve(database_url, "--reuse-port", *options) for _ in range(2))
    with old:
        new.port = old.port
        with new:
            with Load(old.url) as load:
                old.stop()
                load.wait_for(20)
            assert load.unanswered == []
            assert load.longest_s < LONGEST_S
            assert_kept(load, old, new)


@WORKERS
def test_a_server_that_restarts_its_workers_fails_no_call(
    database_url: str, serve: Serve, options: tuple[str, ...]
) -> None:
    with serve(database_url, *options) as server:
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
