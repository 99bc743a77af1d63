"""A database that refuses its service until its operator acts: the answer names the cause, and callers try again."""

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pymysql
import pytest
import requests
from sqlalchemy import make_url

from tests.databases import DatabaseServer, MariaDB, migrate
from tests.faults.checks import answered, assert_kept, is_ready
from tests.faults.load import Load
from tests.servers import Server, backend

Serve = Callable[..., Server]


def assert_refused(server: Server, cause: str, *paths: str) -> None:
    """Wait until the trainings' calls are refused. Check that the answers to an ask and to these paths say why."""
    while answered(server)[503] < 10:  # an ask of this test that is answered would create a trial of no training
        time.sleep(0.05)
    for path in ("/jobs/batch_size?job_id=train", *paths):
        answer = requests.get(server.url + path, timeout=30)
        assert answer.status_code == 503, answer.text
        assert cause in answer.json()["message"]
        assert int(answer.headers["Retry-After"]) > 0


def drop_connections(mariadb: MariaDB, url: str) -> None:
    """Drop all connections of the server's user."""
    with suppress(pymysql.OperationalError):
        mariadb.execute(f"KILL USER {make_url(url).username}")


def test_a_database_that_becomes_read_only(own_database_server: Callable[..., DatabaseServer], serve: Serve) -> None:
    database = own_database_server()
    with serve(database.limited()) as server:
        with Load(server.url) as load:
            database.set_read_only(True)
            assert_refused(server, "it is read-only", "/readyz")
            database.set_read_only(False)
            load.wait_for(20)
            assert is_ready(server.calls)
        assert_kept(load, server, unavailable=True)


def test_a_database_without_a_free_connection(own_mariadb: Callable[..., MariaDB], serve: Serve) -> None:
    mariadb = own_mariadb("--max-connections=10")
    url = mariadb.limited()
    with serve(url) as server, ExitStack() as connections:
        with Load(server.url) as load:
            mariadb.execute("CREATE USER other@'%'")
            taken = 0
            while taken < 10:  # the last of them only once the server has none
                drop_connections(mariadb, url)
                with suppress(pymysql.OperationalError):
                    other = pymysql.connect(host="127.0.0.1", port=mariadb.port, user="other", ssl_disabled=True)
                    connections.callback(other.close)
                    taken += 1
            assert_refused(server, "the database has no free connection", "/readyz")
            connections.close()
            load.wait_for(20)
            assert is_ready(server.calls)
        assert_kept(load, server, unavailable=True)


def test_a_database_whose_binary_log_is_of_statements(
    own_mariadb: Callable[..., MariaDB], serve: Serve, tmp_path: Path
) -> None:
    mariadb = own_mariadb("--log-bin", "--binlog-format=STATEMENT")
    url = mariadb.empty_database()
    for command in ("upgrade", "check"):
        refused = backend("db", command, f"--database-url={url}", folder=tmp_path)
        assert refused.returncode != 0
        assert "set its binlog_format to ROW" in refused.stderr
        assert "Traceback" not in refused.stderr
    mariadb.execute("SET GLOBAL binlog_format = ROW")
    assert backend("db", "check", f"--database-url={url}", folder=tmp_path).returncode == 0
    url = mariadb.limited()
    with serve(url) as server:
        with Load(server.url) as load:
            mariadb.execute("SET GLOBAL binlog_format = STATEMENT")
            drop_connections(mariadb, url)
            assert_refused(server, "set its binlog_format to ROW", "/readyz")
            mariadb.execute("SET GLOBAL binlog_format = ROW")
            load.wait_for(20)
            assert is_ready(server.calls)
        assert_kept(load, server, unavailable=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MB: SQLite's log takes some 4 MB beside the database."""
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.long  # only root can mount
def test_a_full_disk_under_an_sqlite_file(small_disk: Path, serve: Serve) -> None:
    url = f"sqlite:///{small_disk}/bso.db"
    migrate(url)
    with serve(url) as server:
        with Load(server.url) as load:
            filling = small_disk / "filling"
            with suppress(OSError), filling.open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
            assert_refused(server, "the database's disk is full")
            filling.unlink()
            load.wait_for(20)
            assert is_ready(server.calls)
        assert_kept(load, server, unavailable=True)
