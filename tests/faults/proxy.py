"""A TCP proxy that loses answers on their way back to the caller."""

import socket
from collections.abc import Callable
from contextlib import suppress
from socketserver import BaseRequestHandler, ThreadingTCPServer
from threading import Event, Thread
from urllib.parse import urlsplit

from tests.threads import ThreadServer


class Proxy(ThreadServer):
    """A proxy of one server, as a context manager."""

    def __init__(self, url: str) -> None:
        self.url_behind = url
        """The server that new connections lead to."""
        relay = self._relay

        def connect() -> socket.socket:
            target = urlsplit(self.url_behind)
            return socket.create_connection((target.hostname, target.port))

        class Handler(BaseRequestHandler):
            def handle(self) -> None:
                with suppress(OSError), connect() as server:
                    relay(self.request, server)

        server = ThreadingTCPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        super().__init__(server)
        self._unlucky: bytes | None = None
        self._meanwhile: Callable[[], object] = bool
        self.lost = Event()
        """Whether the answer that `lose` announced has been lost."""

    def lose(self, method: str, path: str, meanwhile: Callable[[], object] = bool) -> None:
        """Lose the answer to the next request with this method and path: close its connection instead.

        The server has answered then, so it has committed.

        Args:
            method: the method.
            path: the path, and the query if there is one.
            meanwhile: is called between the answer and the end of the connection.
        """
        self.lost.clear()
        self._meanwhile = meanwhile
        self._unlucky = f"{method} {path} ".encode()

    def _relay(self, caller: socket.socket, server: socket.socket) -> None:
        """Copy what arrives from the caller, as long as the connection is open. A thread copies the answers."""
        unlucky = Event()

        def copy_answers() -> None:
            with suppress(OSError):
                while (part := server.recv(1 << 16)) and not unlucky.is_set():
                    caller.sendall(part)
                if unlucky.is_set():
                    self._meanwhile()
                    self.lost.set()
                caller.shutdown(socket.SHUT_RDWR)

        answers = Thread(target=copy_answers, daemon=True)
        answers.start()
        while part := caller.recv(1 << 16):
            if self._unlucky is not None and part.startswith(self._unlucky):
                self._unlucky = None
                unlucky.set()
            server.sendall(part)
        server.shutdown(socket.SHUT_WR)
        answers.join()
