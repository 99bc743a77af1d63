"""What the server says while its database fails in a way that lasts until somebody acts."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from flask import Flask
from sqlalchemy import make_url

from backend.app import create_app
from backend.config import Settings
from backend.database.extensions import db
from tests.calls import Answer, Calls
from tests.databases import MariaDB, connected, migrate


def is_unavailable(answer: Answer, what: str) -> bool:
    return answer.status == 503 and what in str(answer.message)


@pytest.mark.parametrize("kind", ["sqlite", "mariadb"])
def test_a_missing_table_is_named_to_the_operator(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    server: MariaDB | None = request.getfixturevalue("mariadb") if kind == "mariadb" else None
    url = server.empty_database() if server else f"sqlite:///{tmp_path}/bso.db"  # no other test gets it
    migrate(url)
    calls = Calls.through_test_client(create_app(Settings(database_url=url, log_level="CRITICAL")).test_client())
    calls.register()
    with connected(url) as connection:
        connection.exec_driver_sql("DROP TABLE beliefs")
    for answer in (calls.ask(), calls("GET", "/jobs/train")):
        assert is_unavailable(answer, "a table or a column is missing; python -m backend db check"), answer


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
            cursor.execute("SELECT @@in_transaction")
            assert cursor.fetchone() == (0,)
            cursor.execute("INSERT INTO secrets (name, value) VALUES ('left', 'open')")
            held.close()
        db.engine.dispose()


@pytest.mark.parametrize(
    ("statements", "what"),
    [
        (["REVOKE INSERT ON {database}.* FROM bso@'%'"], "the database user lacks a privilege"),
        (["ALTER USER bso@'%' IDENTIFIED BY 'changed'"], "refuses the user or the password"),
        (["ALTER USER bso@'%' WITH MAX_USER_CONNECTIONS 1"], "the database has no free connection"),
    ],
    ids=["privilege", "password", "connections"],
)
def test_what_the_operator_of_mariadb_has_to_mend_is_said(mariadb: MariaDB, statements: list[str], what: str) -> None:
    url = make_url(mariadb.database())
    mariadb.execute(
        "CREATE OR REPLACE USER bso@'%' IDENTIFIED BY 's3cret'",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON {url.database}.* TO bso@'%'",
    )
    limited = url.set(username="bso", password="s3cret").render_as_string(hide_password=False)
    app = create_app(Settings(database_url=limited, log_level="CRITICAL"))
    calls = Calls.through_test_client(app.test_client())
    calls.register()
    with app.app_context():
        db.engine.dispose()  # the next call logs in again
    with ExitStack() as after:
        mariadb.execute(*(statement.format(database=url.database) for statement in statements))
        if "CONNECTIONS" in statements[0]:
            after.enter_context(connected(limited))
        answer, readiness = calls.ask(), calls("GET", "/readyz")
    assert is_unavailable(answer, what), answer
    assert readiness.status == (200 if "INSERT" in statements[0] else 503)
    assert "s3cret" not in answer.text
    mariadb.execute("DROP USER bso@'%'")
