"""What the server says while its database fails in a way that lasts until somebody acts."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from flask import Flask
from sqlalchemy import event, make_url, update
from sqlalchemy.exc import OperationalError

from backend.app import create_app
from backend.config import Settings
from backend.database import faults
from backend.database.extensions import db
from backend.database.models import Job
from tests.calls import Answer, Calls
from tests.databases import PASSWORD, DatabaseServer, MariaDB, connected, migrate


def is_unavailable(answer: Answer, what: str) -> bool:
    return answer.status == 503 and what in str(answer.message)


@pytest.mark.parametrize("kind", ["sqlite", "mariadb", "postgresql"])
def test_a_missing_table_is_named_to_the_operator(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    server: DatabaseServer | None = None if kind == "sqlite" else request.getfixturevalue(kind)
    url = server.empty_database() if server else f"sqlite:///{tmp_path}/bso.db"  # no other test gets it
    migrate(url)
    calls = Calls.through_test_client(create_app(Settings(database_url=url, log_level="CRITICAL")).test_client())
    calls.register()
    with connected(url) as connection:
        connection.exec_driver_sql("DROP TABLE beliefs")
    for answer in (calls.ask(), calls("GET", "/jobs/train")):
        assert is_unavailable(answer, "a table or a column is missing; python -m backend db check"), answer


def test_an_sqlite_file_that_takes_no_writes_is_named_to_the_operator(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/bso.db"
    migrate(url)
    app = create_app(Settings(database_url=url, log_level="CRITICAL"))
    with app.app_context():
        db.engine.dispose()
        event.listen(db.engine, "connect", lambda made, _: made.execute("PRAGMA query_only = ON"))
    answer = Calls.through_test_client(app.test_client()).register()
    assert is_unavailable(answer, "let the server write to the file and its folder"), answer


def test_a_used_up_pool_is_503_and_passes(make_app: Callable[..., Flask], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.config.POOL_TIMEOUT_S", 0.1)
    app = make_app()
    calls = Calls.through_test_client(app.test_client())
    calls.register()
    with app.app_context(), ExitStack() as held:
        pool = db.engine.pool
        while pool.checkedout() < pool.size() + pool._max_overflow:  # type: ignore[attr-defined]
            held.callback(db.engine.raw_connection().close)
        for answer in (calls.ask(), calls("GET", "/jobs"), calls("GET", "/readyz")):
            assert is_unavailable(answer, "all connections of this server process"), answer
    assert calls.ask().status == 200


def test_what_a_call_leaves_open_is_rolled_back_before_the_next(mariadb: MariaDB) -> None:
    """As after a COMMIT that fails and leaves the connection."""
    app = create_app(Settings(database_url=mariadb.database(), log_level="CRITICAL"))
    with app.app_context():
        for _ in range(2):
            held = db.engine.raw_connection()
            cursor = held.cursor()
            cursor.execute("SELECT name FROM secrets WHERE name = 'left'")
            assert cursor.fetchone() is None
            cursor.execute("INSERT INTO secrets (name, value) VALUES ('left', 'open')")
            held.close()
        db.engine.dispose()


TO_MEND = {
    "mariadb": [
        ("REVOKE INSERT ON {database}.* FROM {user}@'%'", "the database user lacks a privilege"),
        ("ALTER USER {user}@'%' IDENTIFIED BY 'changed'", "refuses the user or the password"),
        ("ALTER USER {user}@'%' WITH MAX_USER_CONNECTIONS 1", "the database has no free connection"),
    ],
    "postgresql": [
        ("REVOKE INSERT ON trials FROM {user}", "the database user lacks a privilege"),
        ("ALTER USER {user} PASSWORD 'changed'", "refuses the user or the password"),
        ("ALTER USER {user} CONNECTION LIMIT 1", "the database has no free connection"),
        ("ALTER USER {user} SET default_transaction_read_only = on", "it is read-only"),
    ],
}


@pytest.mark.parametrize(
    ("kind", "statement", "what"), [(kind, *fault) for kind, faults_of in TO_MEND.items() for fault in faults_of]
)
def test_what_the_operator_has_to_mend_is_said(
    kind: str, statement: str, what: str, request: pytest.FixtureRequest
) -> None:
    server: DatabaseServer = request.getfixturevalue(kind)
    limited = server.limited()
    url = make_url(limited)
    app = create_app(Settings(database_url=limited, log_level="CRITICAL"))
    calls = Calls.through_test_client(app.test_client())
    calls.register()
    with app.app_context():
        db.engine.dispose()  # the next call logs in again
    with ExitStack() as after:
        server.execute(statement.format(database=url.database, user=url.username), database=url.database)
        if "CONNECTION" in statement:
            after.enter_context(connected(limited))
        answer, readiness = calls.ask(), calls("GET", "/readyz")
    assert is_unavailable(answer, what), answer
    assert readiness.status == (200 if "INSERT" in statement else 503)
    assert PASSWORD not in answer.text
    with app.app_context():
        db.engine.dispose()


@pytest.mark.parametrize("kind", ["mariadb", "postgresql"])
def test_a_statement_waits_for_a_lock_for_the_same_time_on_every_database(
    kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.config.LOCK_TIMEOUT_S", 1)
    server: DatabaseServer = request.getfixturevalue(kind)
    url = server.database()
    app = create_app(Settings(database_url=url, log_level="CRITICAL"))
    Calls.through_test_client(app.test_client()).register()
    lock = update(Job).values(paused=False)
    with app.app_context(), connected(url) as outside:
        outside.execute(lock)
        started = time.monotonic()
        with pytest.raises(OperationalError) as refused, db.engine.begin() as connection:
            connection.execute(lock)
        assert 0.9 < time.monotonic() - started < 5
        assert faults.is_passing(refused.value)
        db.engine.dispose()


def test_nul_in_a_text_from_a_caller_is_no_fault_of_the_server(calls: Calls) -> None:
    calls.register()
    assert calls.end(calls.trial(), reason="out of \0 memory").status == 200
    assert calls.records()[0]["outcome"].replace("\N{REPLACEMENT CHARACTER}", "\0") == "out of \0 memory"
    assert calls("GET", "/jobs/%00").status == 422
