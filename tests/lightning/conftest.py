"""A real server for all tests of this folder, and a client with short waits."""

import pytest

from lightning_bso import ZeusBSOCallback
from tests.client.conftest import _no_long_waits, client, guarded, scripted, server
from tests.client.jobs import ScriptedMonitor, job
from tests.servers import Server

__all__ = ["_no_long_waits", "client", "guarded", "scripted", "server"]


@pytest.fixture
def callback(server: Server) -> ZeusBSOCallback:
    """A callback with its own job, whose first batch size is 16."""
    return ZeusBSOCallback(server.url, job(), energy_monitor=ScriptedMonitor())
