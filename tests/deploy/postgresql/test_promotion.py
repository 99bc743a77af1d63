"""Two servers on PostgreSQL while 16 clients train: the primary dies, and its synchronous standby takes over.

The test prints what was acknowledged, and what the standby holds. docs/operations.md has these counts.
"""

import signal
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from sqlalchemy import make_url

from tests.databases import PostgreSQL, connected, postgresql_server, postgresql_standby
from tests.deploy.galera.cluster import balanced
from tests.deploy.training import SETTLED, Clients, assert_kept
from tests.servers import Server


def test_the_primary_is_killed_and_its_standby_is_promoted(
    request: pytest.FixtureRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with ExitStack() as stack:
        primary = stack.enter_context(postgresql_server())
        name = make_url(primary.database()).database
        standby = stack.enter_context(postgresql_standby(primary))
        hosts = "&".join(f"host=127.0.0.1:{server.port}" for server in (primary, standby))
        url = f"postgresql+psycopg://root@/{name}?{hosts}&target_session_attrs=read-write"
        while not _is_synchronous(primary):
            time.sleep(0.05)
        logs = {"ZEUS_BSO_LOG_LEVEL": "INFO", "ZEUS_BSO_LOG_FORMAT": "json"}
        servers = [stack.enter_context(Server(url, tmp_path, workers=2, **logs)) for _ in range(2)]
        address = stack.enter_context(balanced(tmp_path, *servers))
        with Clients(address) as clients:
            clients.wait_for(SETTLED)
            primary.stop(signal.SIGKILL)
            standby.execute("SELECT pg_promote()")
            clients.wait_for(SETTLED)
        with capsys.disabled():
            assert_kept(request.node.name, clients, servers, servers[0])


def _is_synchronous(primary: PostgreSQL) -> bool:
    with connected(f"postgresql+psycopg://root@127.0.0.1:{primary.port}/postgres") as connection:
        states = connection.exec_driver_sql("SELECT sync_state FROM pg_stat_replication").scalars().all()
    return states == ["sync"]
