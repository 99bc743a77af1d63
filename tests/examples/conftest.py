"""A real server with an empty database for every example."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from lightning_bso import BsoClient
from tests.client.conftest import scripted
from tests.servers import Server

__all__ = ["scripted"]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A running server with an empty database."""
    with Server(f"sqlite:///{tmp_path / 'bso.db'}", tmp_path) as running:
        yield running


@pytest.fixture
def client(server: Server) -> BsoClient:
    """A client of that server."""
    return BsoClient(server.url)
