"""A database that is one migration behind or ahead of the servers that use it, because an update is under way."""

from collections.abc import Callable
from pathlib import Path

import flask_migrate
import pytest

from backend.database import schema
from tests.databases import DatabaseServer, connected, in_application, migrate
from tests.faults.checks import answered, assert_kept, is_ready
from tests.faults.load import Load
from tests.servers import Server, backend

Serve = Callable[..., Server]

BEFORE_KEPT_SUMS = "0015"
"""Each call writes columns that the next migration adds."""


@pytest.fixture(params=["mariadb", "postgresql", pytest.param("sqlite", marks=pytest.mark.long)])
def own_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A migrated database that no later test uses."""
    server: DatabaseServer | None = None if request.param == "sqlite" else request.getfixturevalue(request.param)
    url = server.empty_database() if server else f"sqlite:///{tmp_path}/bso.db"
    migrate(url)
    return url


def test_while_the_database_lacks_a_migration_that_calls_need_the_server_says_so_and_then_goes_on(
    own_database_url: str, serve: Serve, tmp_path: Path
) -> None:
    with serve(own_database_url) as server:
        with Load(server.url) as load:
            with in_application(own_database_url):
                flask_migrate.downgrade(revision=BEFORE_KEPT_SUMS)
            assert not is_ready(server.calls)
            answer = server.calls.ask()
            assert (answer.status, "python -m backend db check" in answer.message) == (503, True)
            command = backend("db", "check", f"--database-url={own_database_url}", folder=tmp_path)
            assert command.returncode != 0
            assert schema.UPGRADE_COMMAND in command.stderr
            migrate(own_database_url)
            load.wait_for(20)
            assert is_ready(server.calls)
        assert_kept(load, server, unavailable=True)


def test_while_the_database_is_one_migration_ahead_the_server_stays_ready_and_loses_nothing(
    own_database_url: str, serve: Serve
) -> None:
    with serve(own_database_url) as server:
        with Load(server.url) as load:
            load.wait_for(60)  # PostgreSQL's driver prepares a statement that a connection has run five times
            with connected(own_database_url) as connection:
                connection.exec_driver_sql("ALTER TABLE trials ADD COLUMN of_a_later_version INTEGER")
                if connection.dialect.name == "postgresql":  # statements that are prepared no longer fit such a column
                    connection.exec_driver_sql("ALTER TABLE trials ALTER COLUMN epochs TYPE BIGINT")
                version = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar_one()
                connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
            load.wait_for(20)
            assert is_ready(server.calls)
            assert load.unanswered == []
            assert answered(server)[503] == 0
            with connected(own_database_url) as connection:
                connection.exec_driver_sql(f"UPDATE alembic_version SET version_num = '{version}'")
        assert_kept(load, server)
