"""Fixtures that every folder of tests may use."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from flask import Flask
from flask.testing import FlaskClient

from backend.app import create_app
from backend.config import ENV_PREFIX, Settings
from backend.database.extensions import db
from tests import logs
from tests.calls import Calls
from tests.databases import MariaDB, migrate, start_mariadb

# How long an example takes says how busy the machine is, not whether the code is right.
hypothesis.settings.register_profile("without a deadline", deadline=None)
hypothesis.settings.load_profile("without a deadline")


def pytest_addoption(parser: pytest.Parser) -> None:
    """What can be asked of a test run."""
    parser.addoption(
        "--full-size", action="store_true", help="have a browser look at 200 jobs of 100 trials, not at 10"
    )


@pytest.fixture(autouse=True)
def _only_the_tests_own_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(ENV_PREFIX)]:
        monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _no_log_of_a_server_in_this_process_afterwards() -> Iterator[None]:
    with logs.put_back():
        yield


@pytest.fixture(scope="session")
def mariadb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MariaDB]:
    """A MariaDB server of this test run's own."""
    try:
        server = start_mariadb(tmp_path_factory.mktemp("mariadb"))
    except RuntimeError as error:
        pytest.fail(str(error))
    yield server
    server.process.terminate()
    server.process.wait()


@pytest.fixture(scope="session")
def migrated_sqlite_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite file with the tables that the migrations make; to be copied."""
    file = tmp_path_factory.mktemp("sqlite") / "migrated.db"
    migrate(f"sqlite:///{file}")
    return file


@pytest.fixture(scope="session")
def new_database(request: pytest.FixtureRequest) -> Callable[[str, Path], str]:
    """Makes a fresh database with its tables, of the kind `sqlite` or `mariadb`; the file of one in a folder."""

    def make(kind: str, folder: Path) -> str:
        if kind == "mariadb":
            server: MariaDB = request.getfixturevalue("mariadb")
            return server.database()
        template: Path = request.getfixturevalue("migrated_sqlite_file")
        return f"sqlite:///{shutil.copy(template, folder / 'bso.db')}"

    return make


@pytest.fixture(params=["sqlite", "mariadb"])
def database_url(
    request: pytest.FixtureRequest, new_database: Callable[[str, Path], str], tmp_path: Path
) -> Iterator[str]:
    """A fresh database with its tables: a test that takes it runs on SQLite and on MariaDB."""
    server: MariaDB | None = request.getfixturevalue("mariadb") if request.param == "mariadb" else None
    url = new_database(request.param, tmp_path)
    yield url
    if server is not None:
        server.give_back(url)


@pytest.fixture
def app(database_url: str) -> Iterator[Flask]:
    """The application over a fresh database."""
    made = create_app(Settings(database_url=database_url, log_level="CRITICAL"))
    yield made
    with made.app_context():
        db.engine.dispose()


@pytest.fixture
def make_app(database_url: str) -> Iterator[Callable[..., Flask]]:
    """Makes applications with other settings over one fresh database."""
    made: list[Flask] = []

    def make(**settings: Any) -> Flask:
        made.append(create_app(Settings(database_url=database_url, log_level="CRITICAL", **settings)))
        return made[-1]

    yield make
    for app in made:
        with app.app_context():
            db.engine.dispose()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """A client of that application, without a network."""
    return app.test_client()


@pytest.fixture
def calls(client: FlaskClient) -> Calls:
    """The protocol's calls, through that client."""
    return Calls.through_test_client(client)


@pytest.fixture
def other_app(database_url: str) -> Callable[[], Calls]:
    """Makes another server over the same database."""

    def make() -> Calls:
        app = create_app(Settings(database_url=database_url, log_level="CRITICAL"))
        return Calls.through_test_client(app.test_client())

    return make
