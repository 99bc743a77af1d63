"""Two servers on three Galera nodes while 16 clients train: a node dies, hangs or is cut off, or a server leaves.

Each test prints what was acknowledged, what the database holds, and how long callers had to wait. docs/operations.md
has these counts.
"""

import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from itertools import count
from pathlib import Path

import pytest
import requests
from sqlalchemy import make_url
from sqlalchemy.exc import DBAPIError

from tests.databases import connected, migrate
from tests.deploy.galera.cluster import Cluster, balanced, running_cluster
from tests.deploy.training import SETTLED, Clients, assert_kept
from tests.servers import Server

TABLES = ("zeus.jobs", "zeus.trials", "zeus.reports", "zeus.beliefs", "zeus.audit")
WAITING = "SELECT id FROM information_schema.processlist WHERE user = 'bso' AND command = 'Query'"
Say = Callable[..., None]


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Three nodes behind haproxy, which sends all calls to the first."""
    with running_cluster() as running:
        yield running


@pytest.fixture
def servers(cluster: Cluster, tmp_path: Path) -> Iterator[list[Server]]:
    """Two servers over a new database of the cluster."""
    for statement in ("DROP DATABASE IF EXISTS zeus", "CREATE DATABASE zeus CHARACTER SET utf8mb4"):
        cluster.writer.ask(statement)
    _wait_until_answered(cluster.url)
    migrate(cluster.url)
    logs = {"ZEUS_BSO_LOG_LEVEL": "INFO", "ZEUS_BSO_LOG_FORMAT": "json"}
    with ExitStack() as stack:
        yield [stack.enter_context(Server(cluster.url, tmp_path, workers=2, **logs)) for _ in range(2)]


@pytest.fixture
def check(
    request: pytest.FixtureRequest, cluster: Cluster, servers: list[Server], capsys: pytest.CaptureFixture[str]
) -> Say:
    """A function that checks that all is as it was acknowledged, on every node, and prints the counts."""

    def check(clients: Clients, last: Server) -> None:
        for node in cluster.nodes:
            node.wait_until_synced()
        _wait_until_answered(cluster.url)
        same = {tuple(node.ask(f"CHECKSUM TABLE {table}")[0][1] for table in TABLES) for node in cluster.nodes}
        assert len(same) == 1, "the nodes differ"
        with capsys.disabled():
            assert_kept(request.node.name, clients, servers, last)

    return check


def test_the_writer_is_killed_and_comes_back(
    cluster: Cluster, servers: list[Server], tmp_path: Path, check: Say
) -> None:
    with balanced(tmp_path, *servers) as url, Clients(url) as clients:
        clients.wait_for(SETTLED)
        cluster.writer.end(signal.SIGKILL)
        clients.wait_for(SETTLED)
        cluster.restart(cluster.writer)
        clients.wait_for(SETTLED)
    check(clients, servers[0])


def test_the_writer_is_cut_off_from_the_other_nodes(
    cluster: Cluster, servers: list[Server], tmp_path: Path, check: Say
) -> None:
    with balanced(tmp_path, *servers) as url, Clients(url) as clients:
        clients.wait_for(SETTLED)
        cluster.writer.isolate(isolated=True)
        clients.wait_for(SETTLED)
        cluster.writer.isolate(isolated=False)
        cluster.writer.wait_until_synced()
        clients.wait_for(SETTLED)
    check(clients, servers[0])


def test_the_writer_hangs_for_longer_than_the_others_wait(
    cluster: Cluster, servers: list[Server], tmp_path: Path, check: Say
) -> None:
    with balanced(tmp_path, *servers) as url, Clients(url) as clients:
        clients.wait_for(SETTLED)
        cluster.writer.send(signal.SIGSTOP)
        clients.wait_for(SETTLED)
        cluster.writer.send(signal.SIGCONT)
        cluster.writer.wait_until_synced()
        clients.wait_for(SETTLED)
    check(clients, servers[0])


def test_a_server_is_stopped_and_its_clients_go_on_with_the_other(
    servers: list[Server], tmp_path: Path, check: Say
) -> None:
    with balanced(tmp_path, *servers) as url, Clients(url) as clients:
        clients.wait_for(SETTLED)
        assert servers[0].stop(signal.SIGTERM) == 0
        clients.wait_for(SETTLED)
    check(clients, servers[1])


def test_a_node_that_is_behind_answers_when_it_has_caught_up(
    cluster: Cluster, servers: list[Server], tmp_path: Path
) -> None:
    behind = cluster.nodes[1]
    url = make_url(cluster.url).set(host=behind.host, port=behind.port)
    with Server(str(url), tmp_path) as late, ThreadPoolExecutor(1) as pool, closing(behind.connect()) as held:
        held.cursor().execute("FLUSH TABLES WITH READ LOCK")  # the node applies nothing meanwhile
        servers[0].calls.register()
        answer = pool.submit(requests.get, f"{late.url}/jobs/train", timeout=60)
        while not answer.done() and not behind.ask(WAITING):
            time.sleep(0.01)
        assert not answer.done(), answer.result().text
        held.cursor().execute("UNLOCK TABLES")
        assert answer.result().status_code == 200


def _wait_until_answered(url: str) -> None:
    """Wait until haproxy leads to a node, which takes queries."""
    for attempt in count():
        try:
            with connected(url):
                return
        except DBAPIError:
            if attempt == 300:
                raise
            time.sleep(0.1)
