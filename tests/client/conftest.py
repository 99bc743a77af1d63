"""A real server for all tests of this folder, and a client with short waits between its attempts."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from lightning_bso import BsoClient, transport
from tests.client.scripted import ScriptedServer
from tests.servers import Server, backend


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running server. Every test has its own job on it."""
    folder = tmp_path_factory.mktemp("server")
    with Server(f"sqlite:///{folder / 'bso.db'}", folder) as running:
        yield running


@pytest.fixture
def client(server: Server) -> BsoClient:
    """A client of that server."""
    return BsoClient(server.url)


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[tuple[Server, str]]:
    """A server with an access token, and that token."""
    database = f"sqlite:///{tmp_path / 'bso.db'}"
    with Server(database, tmp_path) as running:
        command = backend(
            *("token", "create", "--label", "ci", "--scope", "run", "--database-url", database), folder=tmp_path
        )
        assert command.returncode == 0, command.stderr
        yield running, command.stdout.split()[0]


@pytest.fixture
def scripted() -> Iterator[ScriptedServer]:
    """A server that answers according to the test's script."""
    with ScriptedServer() as running:
        yield running


@pytest.fixture(autouse=True)
def _no_long_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the number of attempts, but shorten the waits between them."""
    monkeypatch.setattr(transport, "BACKOFF_S", 0.01)
