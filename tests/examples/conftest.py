"""A real server with an empty database for every example."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from lightning_bso import BsoClient
from tests.client.conftest import scripted
from tests.servers import WaitressServer

__all__ = ["scripted"]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[WaitressServer]:
    """A running server with an empty database."""
    with WaitressServer(f"sqlite:///{tmp_path / 'bso.db'}", tmp_path) as running:
        yield running


@pytest.fixture
def client(server: WaitressServer) -> BsoClient:
    """A client of that server."""
    return BsoClient(server.url)
