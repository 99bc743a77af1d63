"""Migrations: they create the tables of the models on every database, also when several processes run them at once."""

import pkgutil
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from threading import Barrier
from typing import Any

import flask_migrate
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from flask import Flask
from sqlalchemy import text

from backend.app import create_app
from backend.config import CONNECT_TIMEOUT_S, Settings
from backend.core.rng import position_of, seeded
from backend.database import schema
from backend.database.extensions import db
from backend.errors import SchemaOutdated
from lightning_bso.wire import RegisteredJobSpec
from tests import specs
from tests.calls import Calls
from tests.databases import DatabaseServer, MariaDB, PostgreSQL, connected, dump, migrate
from tests.servers import Server, backend


@pytest.fixture(params=["sqlite", "mariadb", "mariadb with latin1", "postgresql"])
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database without tables."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/new.db"
    if request.param == "postgresql":
        postgresql: PostgreSQL = request.getfixturevalue("postgresql")
        return postgresql.empty_database()
    mariadb: MariaDB = request.getfixturevalue("mariadb")
    return mariadb.empty_database("latin1" if "latin1" in request.param else "utf8mb4")


@pytest.fixture(params=["mariadb", "postgresql"])
def database_server(request: pytest.FixtureRequest) -> DatabaseServer:
    """A database server."""
    server: DatabaseServer = request.getfixturevalue(request.param)
    return server


def test_the_migrations_make_exactly_the_models_tables(empty_database_url: str) -> None:
    migrate(empty_database_url)
    with connected(empty_database_url) as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, db.metadata) == []


def test_upgrading_again_changes_nothing(empty_database_url: str) -> None:
    migrate(empty_database_url)
    before = dump(empty_database_url)
    migrate(empty_database_url)
    assert dump(empty_database_url) == before


def test_an_upgraded_database_takes_every_script_whatever_its_defaults(empty_database_url: str) -> None:
    migrate(empty_database_url)
    app = create_app(Settings(database_url=empty_database_url, log_level="CRITICAL"))
    calls = Calls.through_test_client(app.test_client())
    assert calls.register(job_id="日本😀", job_id_prefix="日", gpu_model="ش😀").status == 201
    assert calls.end(calls.trial("日本😀"), reason="語" * 500).status == 200
    assert calls.records("日本😀")[0]["outcome"] == "語" * 500


@pytest.mark.parametrize("state", ["empty", "old"])
def test_a_server_database_that_is_not_up_to_date_is_refused_with_the_command(
    database_server: DatabaseServer, state: str
) -> None:
    url = database_server.empty_database() if state == "empty" else database_server.database()
    if state == "old":
        with connected(url) as connection:
            connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0001'")
    with pytest.raises(SchemaOutdated, match="python -m backend db upgrade"):
        create_app(Settings(database_url=url, log_level="CRITICAL"))


def test_the_commands_check_and_upgrade_a_server_database(database_server: DatabaseServer, tmp_path: Path) -> None:
    url = database_server.empty_database()
    for command in (("serve", "--port=0"), ("db", "check")):
        refused = backend(*command, f"--database-url={url}", folder=tmp_path)
        assert refused.returncode != 0
        assert "python -m backend db upgrade" in refused.stderr
        assert "Traceback" not in refused.stderr
    upgraded = backend("db", "upgrade", folder=tmp_path, ZEUS_BSO_DATABASE_URL=url)
    assert upgraded.returncode == 0, upgraded.stderr
    assert backend("db", "check", f"--database-url={url}", folder=tmp_path).returncode == 0
    with Server(url, tmp_path) as server:
        assert server.calls.register().status == 201


def test_several_upgrades_at_once_all_succeed(empty_database_url: str, tmp_path: Path) -> None:
    def upgrade(_: int) -> "subprocess.CompletedProcess[str]":
        return backend("db", "upgrade", f"--database-url={empty_database_url}", folder=tmp_path)

    with ThreadPoolExecutor(3) as pool:
        upgrades = list(pool.map(upgrade, range(3)))
    assert [upgrade.returncode for upgrade in upgrades] == [0, 0, 0], upgrades
    with connected(empty_database_url) as connection:
        assert compare_metadata(MigrationContext.configure(connection), db.metadata) == []


def test_four_servers_that_start_at_once_on_a_new_file_all_come_up(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/new.db"
    servers = [Server(url, tmp_path) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool, ExitStack() as stack:
        running = list(pool.map(stack.enter_context, servers))
        for number, server in enumerate(running):
            assert server.calls.register().status == (200 if number else 201)
            assert server.calls.trial()["trial_number"] == number + 1


def test_a_new_file_can_be_opened_by_many_at_once(tmp_path: Path) -> None:
    # SQLite's busy timeout does not apply while another process switches the same file to a write-ahead log.
    for number in range(25):
        engines = [sa.create_engine(f"sqlite:///{tmp_path}/new-{number}.db") for _ in range(8)]
        together = Barrier(8)

        def connect(engine: sa.Engine, together: Barrier = together) -> str:
            together.wait()
            with engine.connect() as connection:
                return str(connection.exec_driver_sql("PRAGMA journal_mode").scalar_one())

        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(connect, engines)) == {"wal"}
        for engine in engines:
            engine.dispose()


@pytest.mark.parametrize("driver", ["mysql+pymysql", "postgresql+psycopg"])
def test_upgrading_an_unreachable_database_is_an_error_without_a_traceback(driver: str, tmp_path: Path) -> None:
    url = f"{driver}://someone:s3cret-password@127.0.0.1:1/zeus"
    for command in (("db", "upgrade"), ("db", "check"), ("serve", "--port=0")):
        done = backend(*command, f"--database-url={url}", folder=tmp_path)
        assert done.returncode == 1, command
        assert "Traceback" not in done.stderr, command
        assert "s3cret" not in done.stdout + done.stderr


def test_a_file_that_cannot_be_opened_is_an_error_without_a_traceback(tmp_path: Path) -> None:
    done = backend("serve", "--port=0", f"--database-url=sqlite:///{tmp_path}/nowhere/bso.db", folder=tmp_path)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


def test_a_file_that_is_no_database_is_an_error_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "bso.db").write_text("this is not a database " * 100)
    done = backend("serve", "--port=0", f"--database-url=sqlite:///{tmp_path}/bso.db", folder=tmp_path)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert (tmp_path / "bso.db").read_text().startswith("this is not a database")


@pytest.mark.parametrize(
    ("system", "connects"), [("mariadb", "pymysql.connect"), ("postgresql", "backend.database.postgresql.connect")]
)
def test_an_upgrade_gives_up_connecting_but_waits_for_statements_that_take_long(
    system: str, connects: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    server: DatabaseServer = request.getfixturevalue(system)
    url = server.empty_database()
    connections: list[dict[str, Any]] = []
    connect = pkgutil.resolve_name(connects.replace(".connect", ":connect"))

    def note(*arguments: Any, **options: Any) -> Any:
        connections.append(options)
        return connect(*arguments, **options)

    monkeypatch.setattr(connects, note)
    migrate(url)
    *of_application, of_migrations = connections
    assert {options["connect_timeout"] for options in connections} == {CONNECT_TIMEOUT_S}
    assert all("options" not in options for options in connections)  # PgBouncer takes none
    limits = {"read_timeout", "init_command"}
    assert all(limits & set(options) for options in of_application)
    assert not limits & set(of_migrations)


def test_databases_on_one_server_are_upgraded_independently(database_server: DatabaseServer, tmp_path: Path) -> None:
    urls = [database_server.empty_database() for _ in range(2)]
    apps = [create_app(Settings(database_url=url, log_level="ERROR"), prepare_database=False) for url in urls]
    with apps[0].app_context():
        schema.upgrade()
        try:
            done = backend("db", "upgrade", f"--database-url={urls[1]}", folder=tmp_path)
        finally:
            db.engine.dispose()
    assert done.returncode == 0, done.stderr


def test_a_migration_that_recreates_a_table_keeps_the_rows_of_all_tables(
    calls: Calls, app: Flask, tmp_path: Path
) -> None:
    calls.register()
    calls.converge(calls.trial())
    folder = shutil.copytree(Path(app.root_path) / "migrations", tmp_path / "migrations")
    (folder / "versions" / "9999_next.py").write_text(
        "import sqlalchemy as sa\n"
        "from alembic import op\n"
        f"revision, down_revision, branch_labels, depends_on = '9999', '{_head(app)}', None, None\n"
        "def upgrade():\n"
        "    with op.batch_alter_table('jobs') as table:\n"
        "        table.alter_column('seed', existing_type=sa.BigInteger(), nullable=True)\n"
    )
    with app.app_context():
        flask_migrate.upgrade(directory=str(folder))
        url = db.engine.url.render_as_string(hide_password=False)
    after = dump(url)
    assert [len(after[table]) for table in ("jobs", "trials", "reports")] == [1, 1, 1]
    assert calls.record({"job_id": "train", "trial_number": 1})["converged"]


def test_trials_from_before_bound_factors_get_the_usual_bound(empty_database_url: str) -> None:
    app = create_app(Settings(database_url=empty_database_url, log_level="CRITICAL"), prepare_database=False)
    with app.app_context():
        flask_migrate.upgrade(revision="0002")
        db.engine.dispose()
    spec = RegisteredJobSpec.model_validate(specs.job()).model_dump_json(exclude={"policy", "warm_start_from"})
    job = {"id": 1, "job_id": "train", "spec": spec, "seed": 1, "rng_position": position_of(seeded(1))}
    job |= {"revision": 4, "exploration": 0, "created_at": datetime(2026, 1, 1)}
    trial = {"job": 1, "exploration": 0, "batch_size": 16, "type": "Pruning", "reason": "the default", "time_s": 1.0}
    trial |= {"energy_j": 10.0, "epochs": 1, "started_at": datetime(2026, 1, 1), "last_seen_at": datetime(2026, 1, 1)}
    ended = {"number": 1, "status": "Succeeded", "converged": True, "started_revision": 1, "ended_revision": 2}
    running = {"number": 2, "status": "Dispatched", "started_revision": 3}
    with connected(empty_database_url) as connection:
        for table, row in (("jobs", job), ("trials", trial | ended), ("trials", trial | running)):
            columns = [sa.column(name) for name in row]
            connection.execute(sa.table(table, *columns).insert().values(row))
    migrate(empty_database_url)
    with connected(empty_database_url) as connection:
        rows = connection.execute(text("SELECT number, bound_factor FROM trials ORDER BY number")).all()
        assert [tuple(row) for row in rows] == [(1, 1.0), (2, 1.0)]
        assert connection.execute(text("SELECT warm_start FROM jobs")).scalar_one() is None
    app = create_app(Settings(database_url=empty_database_url, log_level="CRITICAL"))
    calls = Calls.through_test_client(app.test_client())
    assert calls.describe()["spec"]["policy"] == "zeus"
    assert calls.register().status == 200
    second = {"job_id": "train", "batch_size": 16, "trial_number": 2}
    assert calls.must(calls.report(second, energy=20.5))["reason"] == "cost_bound"


def test_the_newest_migration_can_be_taken_back(calls: Calls, app: Flask, database_url: str) -> None:
    calls.register()
    calls.converge(calls.trial())
    with app.app_context():
        head = schema.needed_version()
        flask_migrate.downgrade()
        assert schema.current_version() != head
        flask_migrate.upgrade()
        assert schema.current_version() == head
        db.engine.dispose()
    assert calls.record({"job_id": "train", "trial_number": 1})["converged"]
    with connected(database_url) as connection:
        assert connection.execute(text("SELECT bound_factor FROM trials")).scalar_one() == 1


@pytest.mark.parametrize("command", [("serve", "--port=0"), ("db", "upgrade"), ("db", "check")])
def test_a_database_of_a_newer_version_is_an_error_and_left_alone(tmp_path: Path, command: tuple[str, ...]) -> None:
    url = f"sqlite:///{tmp_path / 'zeus_bso.db'}"
    migrate(url)
    with connected(url) as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    done = backend(*command, folder=tmp_path)
    assert done.returncode == 1
    assert "9999" in done.stderr
    assert "Update the program" in done.stderr
    assert "Traceback" not in done.stderr


def _head(app: Flask) -> str:
    with app.app_context():
        return schema.needed_version() or ""
