"""Fixtures for all folders of tests."""

import gc
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest
from flask import Flask
from flask.testing import FlaskClient
from jinja2 import FileSystemBytecodeCache

from backend.app import BsoServer, create_app
from backend.config import ENV_PREFIX, MAX_AUTH_CACHE_S, Settings
from backend.database.extensions import db
from backend.usecases import users
from backend.web import auth, logs
from tests.calls import Calls
from tests.databases import DatabaseServer, MariaDB, PostgreSQL, migrate, postgresql_server, start_mariadb, start_mysql
from tests.logs import restored

if TYPE_CHECKING:
    from playwright.sync_api import Browser

CHROMIUM = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of a test run."""
    parser.addoption(
        "--full-size",
        action="store_true",
        help="200 jobs of 25 trials in a browser, all of it in dark mode too, all faults, and longer runs elsewhere",
    )
    parser.addoption(
        "--many-examples", action="store_true", help="random tests differ each time, and some send many calls"
    )
    parser.addoption("--mysql", type=Path, help="folder of an unpacked MySQL, which takes the place of MariaDB")


def pytest_configure(config: pytest.Config) -> None:
    """Let random tests be the same each time, unless asked otherwise, so that a run fails only for what has changed."""
    # The time of an example depends on the load of the machine, so it says nothing about the code.
    hypothesis.settings.register_profile("tests", deadline=None, derandomize=not config.getoption("many_examples"))
    hypothesis.settings.load_profile("tests")


def pytest_collection_finish() -> None:
    """Exempt all imported modules from garbage collection, which would scan them again and again."""
    gc.freeze()


@pytest.fixture(autouse=True)
def _only_the_tests_own_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(ENV_PREFIX)]:
        monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _restored_root_logger() -> Iterator[None]:
    with restored():
        yield


@pytest.fixture(autouse=True)
def _quick_password_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hash passwords at a low strength. `users.HASH_METHOD` would take longer than many a test."""
    monkeypatch.setattr(users, "HASH_METHOD", "scrypt:256:8:1")


@pytest.fixture(scope="session", autouse=True)
def _templates_compiled_once(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Let all applications of this process share their compiled templates."""
    cache = FileSystemBytecodeCache(str(tmp_path_factory.mktemp("templates")))
    BsoServer.jinja_options = {"bytecode_cache": cache}


@pytest.fixture(scope="session")
def mariadb(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[MariaDB]:
    """A MariaDB server for this test run only, or a MySQL with --mysql."""
    folder, mysql = tmp_path_factory.mktemp("mariadb"), pytestconfig.getoption("mysql")
    try:
        server = start_mysql(folder, mysql) if mysql else start_mariadb(folder)
    except RuntimeError as error:
        pytest.fail(str(error))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """A PostgreSQL server for this test run only."""
    with ExitStack() as stack:
        try:
            server = stack.enter_context(postgresql_server())
        except RuntimeError as error:
            pytest.fail(str(error))
        yield server


@pytest.fixture(scope="session")
def browser() -> Iterator["Browser"]:
    """Chromium, from the PATH. A process can drive one only."""
    path = shutil.which("chromium")
    if path is None:
        pytest.fail("chromium is missing; on Debian and Ubuntu: apt-get install chromium")
    from playwright.sync_api import sync_playwright  # other tests do without it

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(
            executable_path=path, args=[*CHROMIUM, "--disable-component-update", "--disable-sync"]
        )
        yield running
        running.close()


@pytest.fixture(scope="session")
def migrated_sqlite_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite file with the tables that the migrations create. Tests copy it."""
    file = tmp_path_factory.mktemp("sqlite") / "migrated.db"
    migrate(f"sqlite:///{file}")
    return file


@pytest.fixture(scope="session")
def new_database(request: pytest.FixtureRequest) -> Callable[[str, Path], str]:
    """A function that creates a migrated database on `sqlite` (a file in the folder), `mariadb` or `postgresql`."""

    def make(system: str, folder: Path) -> str:
        if system != "sqlite":
            server: DatabaseServer = request.getfixturevalue(system)
            return server.database()
        template: Path = request.getfixturevalue("migrated_sqlite_file")
        return f"sqlite:///{shutil.copy(template, folder / 'bso.db')}"

    return make


@pytest.fixture(scope="session")
def sqlite_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the SQLite file that one test after the other uses."""
    return tmp_path_factory.mktemp("database")


@pytest.fixture(params=["sqlite", "mariadb", "postgresql"])
def database_url(
    request: pytest.FixtureRequest, new_database: Callable[[str, Path], str], sqlite_folder: Path
) -> Iterator[str]:
    """A new, migrated database. A test with this fixture runs on SQLite, on MariaDB and on PostgreSQL."""
    server: DatabaseServer | None = None if request.param == "sqlite" else request.getfixturevalue(request.param)
    for file in sqlite_folder.iterdir():
        file.unlink()  # not overwritten: a process that the last test left behind may still write
    url = new_database(request.param, sqlite_folder)
    yield url
    if server is not None:
        server.recycle(url)


@cache
def _application(url: str) -> tuple[Flask, dict[str, Any]]:
    """Create the application over the databases that have this URL one after the other. Returns its configuration too.

    An application takes longer to create than many a test takes.
    """
    app = create_app(Settings(database_url=url, log_level="CRITICAL", auth_cache_s=MAX_AUTH_CACHE_S))
    return app, dict(app.config)


@pytest.fixture
def app(database_url: str) -> Iterator[Flask]:
    """The application over a new database."""
    app, configuration = _application(database_url)
    app.config.update(configuration)
    app.extensions.pop(auth.__name__, None)  # what it remembers of the database before
    logs.configure("CRITICAL", "auto")
    with app.app_context():
        app.secret_key = users.session_key()
    yield app
    with app.app_context():
        db.engine.dispose()


@pytest.fixture
def make_app(database_url: str) -> Iterator[Callable[..., Flask]]:
    """A function that creates applications with other settings, all over one new database."""
    apps: list[Flask] = []

    def make(**settings: Any) -> Flask:
        apps.append(create_app(Settings(database_url=database_url, log_level="CRITICAL", **settings)))
        return apps[-1]

    yield make
    for app in apps:
        with app.app_context():
            db.engine.dispose()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """A client of the application, without a network."""
    return app.test_client()


@pytest.fixture
def calls(client: FlaskClient) -> Calls:
    """The protocol's calls through the client."""
    return Calls.through_test_client(client)


@pytest.fixture
def other_app(database_url: str) -> Callable[[], Calls]:
    """A function that creates another server over the same database."""

    def make() -> Calls:
        app = create_app(Settings(database_url=database_url, log_level="CRITICAL"))
        return Calls.through_test_client(app.test_client())

    return make
