"""Databases and drivers that are not tested: they are tried with a warning, or refused with what they lack."""

from pathlib import Path

import pytest
from sqlalchemy import make_url
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite

from backend.app import create_app
from backend.config import Settings
from backend.errors import DatabaseUnusable
from tests.databases import PostgreSQL
from tests.servers import Server, backend


class OfElsewhere(PGDialect_psycopg):
    """A database with the clock of standard SQL, which is in the time zone of the session."""

    name = "elsewhere"
    supports_statement_cache = True


class WithoutReadCommitted(SQLiteDialect_pysqlite):
    """A database with other isolation levels."""

    name = "serial"
    supports_statement_cache = True


registry.register("elsewhere", __name__, "OfElsewhere")
registry.register("serial", __name__, "WithoutReadCommitted")


def test_a_driver_that_is_not_tested_works_and_the_server_warns(postgresql: PostgreSQL, tmp_path: Path) -> None:
    url = make_url(postgresql.empty_database()).set(drivername="postgresql+pg8000").render_as_string()
    upgraded = backend("db", "upgrade", f"--database-url={url}", folder=tmp_path)
    assert upgraded.returncode == 0, upgraded.stderr
    with Server(url, tmp_path) as server:
        calls = server.calls
        calls.register(policy="gp-ucb")
        for _ in range(3):
            calls.converge(calls.trial())
        assert [record["converged"] for record in calls.records()] == [True] * 3
        assert calls("GET", "/readyz").status == 200
    assert "database_not_tested" in server.read_log()


def test_a_tested_driver_gives_no_warning(postgresql: PostgreSQL, tmp_path: Path) -> None:
    for url in (postgresql.database(), f"sqlite+pysqlite:///{tmp_path}/bso.db"):
        with Server(url, tmp_path) as server:
            pass
        assert "database_not_tested" not in server.read_log()


def test_a_database_with_another_encoding_is_refused_with_the_one_it_needs(
    postgresql: PostgreSQL, tmp_path: Path
) -> None:
    postgresql.execute("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    url = f"postgresql://root@127.0.0.1:{postgresql.port}/latin"
    for command in (("db", "upgrade"), ("serve", "--port=0")):
        done = backend(*command, f"--database-url={url}", folder=tmp_path)
        assert done.returncode == 1
        assert "its encoding is LATIN1" in done.stderr
        assert "ENCODING 'UTF8'" in done.stderr


@pytest.mark.parametrize("system", ["elsewhere", "serial"])
def test_a_database_that_lacks_something_is_refused_with_it(
    system: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    if system == "elsewhere":
        postgresql: PostgreSQL = request.getfixturevalue("postgresql")
        postgresql_url = make_url(postgresql.database()).set(drivername=system)
        url, lacks = postgresql_url.render_as_string(hide_password=False), "do not have the time of UTC"
    else:
        url, lacks = f"serial:///{tmp_path}/bso.db", "READ COMMITTED"
    with pytest.raises(DatabaseUnusable, match=lacks):
        create_app(Settings(database_url=url, log_level="CRITICAL"))
