"""Long tests run only with --full-size. Each database server that a test breaks is the test's own."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from lightning_bso import transport
from tests.databases import DatabaseServer, MariaDB, postgresql_server, start_mariadb
from tests.servers import Server


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what takes long, unless the run is of full size."""
    if not config.getoption("full_size"):
        long = [item for item in items if item.get_closest_marker("long")]
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]


@pytest.fixture(autouse=True)
def _no_long_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the number of the client's attempts, but shorten the waits between them."""
    monkeypatch.setattr(transport, "BACKOFF_S", 0.02)


@pytest.fixture
def own_mariadb(tmp_path: Path) -> Iterator[Callable[..., MariaDB]]:
    """A function that starts a MariaDB for the test alone, with options of `mariadbd` and environment variables."""
    servers: list[MariaDB] = []

    def make(*options: str, **variables: str) -> MariaDB:
        folder = tmp_path / f"mariadb-{len(servers)}"
        folder.mkdir()
        servers.append(start_mariadb(folder, *options, **variables))
        return servers[-1]

    yield make
    for server in servers:
        server.stop()


@pytest.fixture(params=["mariadb", "postgresql"])
def own_database_server(request: pytest.FixtureRequest) -> Iterator[Callable[..., DatabaseServer]]:
    """A function that starts a database server for the test alone. It may end connections that are idle for long."""
    with ExitStack() as servers:

        def make(*, idle_timeout_s: int | None = None) -> DatabaseServer:
            if request.param == "mariadb":
                options = [] if idle_timeout_s is None else [f"--wait-timeout={idle_timeout_s}"]
                mariadb: MariaDB = request.getfixturevalue("own_mariadb")(*options)
                return mariadb
            options = [] if idle_timeout_s is None else [f"--idle_session_timeout={idle_timeout_s}s"]
            return servers.enter_context(postgresql_server(*options))

        yield make


@pytest.fixture
def serve(tmp_path: Path) -> Callable[..., Server]:
    """A function that makes a server of two workers over a database, with a log of all requests."""

    def make(database_url: str, **variables: str) -> Server:
        logs = {"ZEUS_BSO_LOG_LEVEL": "INFO", "ZEUS_BSO_LOG_FORMAT": "json"}
        return Server(database_url, tmp_path, workers=2, **logs, **variables)

    return make
