"""Rows locked from outside the server, and deadlocks: calls wait or are repeated inside the server."""

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import pytest
from sqlalchemy import NullPool, create_engine, make_url, text

from tests.databases import MariaDB, PostgreSQL, connected
from tests.faults.checks import assert_kept
from tests.faults.load import Load
from tests.servers import Server

Serve = Callable[..., Server]
DEADLOCKS = 20
DEADLOCKS_ON_POSTGRESQL = 3
"""PostgreSQL looks for a deadlock after one second."""


@contextmanager
def locked(url: str) -> Iterator[None]:
    """Hold the lock that every call of a job needs."""
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(str(make_url(url).database), isolation_level=None, timeout=60)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield
    else:
        with create_engine(url, poolclass=NullPool).begin() as connection:
            connection.execute(text("SELECT id FROM jobs FOR UPDATE"))
            yield


@pytest.mark.parametrize("held_s", [1.0, pytest.param(15.0, marks=pytest.mark.long)])
def test_calls_wait_for_a_row_that_is_locked_from_outside(database_url: str, serve: Serve, held_s: float) -> None:
    """For longer than a client waits for an answer, and than a statement waits for a lock, in the long case."""
    with serve(database_url) as server:
        with Load(server.url) as load:
            with locked(database_url):
                time.sleep(held_s)
            load.wait_for(20)
        assert load.longest_s > held_s * 0.6
        assert_kept(load, server)


def test_calls_that_deadlock_on_postgresql_are_repeated(postgresql: PostgreSQL, serve: Serve) -> None:
    url = postgresql.database()
    # The database ends the transaction that looks for a deadlock first. So it is never this one.
    patient = create_engine(url, poolclass=NullPool, connect_args={"options": "-c deadlock_timeout=60s"})
    deadlocks = text("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")

    def count() -> int:
        with connected(url) as connection:
            connection.execute(text("SELECT pg_stat_force_next_flush()"))
            return int(connection.execute(deadlocks).scalar_one())

    with serve(url) as server:
        with Load(server.url) as load, patient.connect() as outside:
            while count() < DEADLOCKS_ON_POSTGRESQL:
                outside.execute(text("SELECT id FROM trials WHERE status = 'Dispatched' FOR UPDATE"))
                outside.execute(text("SELECT id FROM jobs FOR UPDATE"))
                outside.rollback()
        assert load.unanswered == []
        assert_kept(load, server)


def test_calls_that_deadlock_are_repeated(mariadb: MariaDB, serve: Serve) -> None:
    url = mariadb.database()
    mariadb.execute("CREATE TABLE ballast (row INTEGER)", database=make_url(url).database)
    engine = create_engine(url, poolclass=NullPool, isolation_level="READ COMMITTED")
    deadlocks = text("SHOW GLOBAL STATUS LIKE 'Innodb_deadlocks'")

    with serve(url) as server:
        with Load(server.url) as load, engine.connect() as outside:
            before = int(outside.execute(deadlocks).one()[1])
            outside.rollback()
            while int(outside.execute(deadlocks).one()[1]) < before + DEADLOCKS:
                # The database ends the transaction that has changed less. So it is never this one.
                outside.execute(text("INSERT INTO ballast SELECT seq FROM seq_1_to_1000"))
                outside.execute(text("SELECT id FROM trials WHERE status = 'Dispatched' FOR UPDATE"))
                outside.execute(text("SELECT id FROM jobs FOR UPDATE"))
                outside.rollback()
        assert load.unanswered == []
        mariadb.execute("DROP TABLE ballast", database=make_url(url).database)
        assert_kept(load, server)
