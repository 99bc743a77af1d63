"""A server whose connections to PostgreSQL go through PgBouncer, which pools sessions."""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import make_url
from sqlalchemy.exc import OperationalError

from tests.databases import STARTUP_S, PostgreSQL, connected, free_port
from tests.faults.checks import assert_kept, is_ready
from tests.faults.load import Load
from tests.servers import Server, backend

SETTINGS = """
[databases]
* = host=127.0.0.1 port={behind} user=root
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = session
"""


@contextmanager
def pgbouncer(folder: Path, database_url: str) -> Iterator[str]:
    """Run PgBouncer in front of a database. Yields the URL that leads through it."""
    url, port = make_url(database_url), free_port()
    settings, log = folder / "pgbouncer.ini", folder / "pgbouncer.log"
    not_root = "user = postgres\n" if os.geteuid() == 0 else ""
    settings.write_text(SETTINGS.format(behind=url.port, port=port) + not_root)
    with log.open("w") as output:
        process = subprocess.Popen(["pgbouncer", settings], stdout=output, stderr=output)
    through = url.set(port=port).render_as_string(hide_password=False)
    deadline = time.monotonic() + STARTUP_S
    try:
        while not _is_answering(through):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)
        yield through
    finally:
        process.terminate()
        process.wait()


def test_a_server_behind_pgbouncer_migrates_and_loses_nothing(postgresql: PostgreSQL, tmp_path: Path) -> None:
    logs = {"ZEUS_BSO_LOG_LEVEL": "INFO", "ZEUS_BSO_LOG_FORMAT": "json"}
    with pgbouncer(tmp_path, postgresql.empty_database()) as url:
        upgraded = backend("db", "upgrade", f"--database-url={url}", folder=tmp_path)
        assert upgraded.returncode == 0, upgraded.stderr
        with Server(url, tmp_path, workers=2, **logs) as server:
            assert is_ready(server.calls)
            with Load(server.url) as load:
                load.wait_for(40)
            assert_kept(load, server)


def _is_answering(url: str) -> bool:
    try:
        with connected(url):
            return True
    except OperationalError:
        return False
