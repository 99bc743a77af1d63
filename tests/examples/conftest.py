"""A real server for the examples."""

from tests.client.conftest import client, server

__all__ = ["client", "server"]
