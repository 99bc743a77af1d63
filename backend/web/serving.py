"""What `python -m backend serve` listens with: waitress, told how many may call at once and how long they may take."""

from typing import Any

from flask import Flask
from waitress.channel import HTTPChannel
from waitress.server import TcpWSGIServer, create_server

THREADS = 8
LARGEST_BUFFERED_BODY = 64 * 1024 * 1024  # beyond it waitress answers by itself, below it the application
MOST_CONNECTIONS = 400
"""Those beyond it wait. Each may hold a file for its body as well, and a process has often 1024 of both at most."""
WHOLE_REQUEST_S = 10
"""A connection is closed on which no whole request came in for so long; the largest that is read has 64 KiB."""


class _Connection(HTTPChannel):
    """A connection that parts of a request keep open no longer than silence does."""

    def handle_read(self) -> None:
        """Read what has come in."""
        begun, last_activity = self.request, self.last_activity
        super().handle_read()  # type: ignore[no-untyped-call]
        still_begun = begun is not None and self.request is begun
        nothing_whole = self.request is None and not self.requests  # but empty lines
        if still_begun or nothing_whole:
            self.last_activity = last_activity


def make_server(app: Flask, host: str, port: int) -> tuple[Any, int]:
    """Listen on an address. Returns the server, to be run, and its port, which is another than asked for if that is 0.

    Raises:
        OSError: it cannot listen there.
    """
    sockets: dict[int, Any] = {}
    server = create_server(
        app,
        map=sockets,
        host=host,
        port=port,
        threads=THREADS,
        ident="",
        server_name=host,  # `auth` looks at it
        clear_untrusted_proxy_headers=False,  # so does `security` at these
        max_request_body_size=LARGEST_BUFFERED_BODY,
        connection_limit=MOST_CONNECTIONS,
        channel_timeout=WHOLE_REQUEST_S,
        cleanup_interval=1,
        asyncore_use_poll=True,  # select knows no more than 1024 files
    )
    listening = [one for one in sockets.values() if isinstance(one, TcpWSGIServer)]  # one per address of the host
    for one in listening:
        one.channel_class = _Connection
    return server, listening[0].effective_port
