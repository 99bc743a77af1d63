"""Servers that run in a thread of the test's own process, on loopback."""

import socketserver
from threading import Thread
from types import TracebackType
from typing import Self


class ThreadServer:
    """A server in a thread, as a context manager."""

    def __init__(self, server: socketserver.TCPServer) -> None:
        self._server = server
        self._thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
