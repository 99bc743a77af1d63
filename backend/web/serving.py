"""The embedded server behind `python -m backend serve`: waitress and its limits. docs/server.md explains them."""

import os
import resource
import signal
from threading import Thread
from typing import Any

import structlog
from flask import Flask
from waitress.server import create_server

log = structlog.get_logger(__name__)

END_SIGNALS = (signal.SIGINT, signal.SIGTERM)
THREADS = 8
MAX_CONNECTIONS = 600
"""Further connections wait."""
MAX_OPEN_FILES = 2 * MAX_CONNECTIONS + 200
"""A connection takes a file, the body of a large request takes another, and the database takes some."""
SILENCE_S = 10
"""A connection is closed when nothing arrived on it for this long."""
MAX_BUFFERED_BODY_BYTES = 64 * 1024 * 1024
"""Waitress itself refuses a larger body. The application refuses any body over its own, smaller limit."""


def make_server(app: Flask, host: str, port: int) -> tuple[Any, int]:
    """Listen on an address.

    Args:
        app: the application.
        host: address or name to listen on.
        port: 0 for a free port.

    Returns:
        The server, ready for its `run()`, and the port it listens on.

    Raises:
        OSError: the address is in use or not available.
    """
    _allow_open_files()
    server = create_server(
        app,
        host=host,
        port=port,
        threads=THREADS,
        ident="",
        server_name=host,  # `auth` reads it
        clear_untrusted_proxy_headers=False,  # `security` reads them
        max_request_body_size=MAX_BUFFERED_BODY_BYTES,
        connection_limit=MAX_CONNECTIONS,
        channel_timeout=SILENCE_S,
        cleanup_interval=1,
        asyncore_use_poll=True,  # select handles at most 1024 files
    )
    # A name such as localhost may stand for several addresses.
    listening = getattr(server, "effective_listen", None) or [(server.effective_host, server.effective_port)]
    return server, listening[0][1]


def hold_signals() -> None:
    """Let the signals that end the server wait for `run_until_signal`. Call this before `make_server`.

    The server's threads inherit this. An exception that a signal handler raises in waitress' loop may get lost.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, END_SIGNALS)


def run_until_signal(server: Any) -> None:
    """Serve until Ctrl-C or SIGTERM. Requests that are being answered get a few seconds to end."""
    Thread(target=_run, args=(server,), daemon=True).start()
    signal.sigwait(END_SIGNALS)
    server.task_dispatcher.shutdown()


def _run(server: Any) -> None:
    try:
        server.run()
    except BaseException:
        log.exception("server_failed")
        os._exit(1)  # the main thread waits for a signal


def _allow_open_files() -> None:
    """Raise this process's limit of open files, as far as the system allows. The usual limit is 1024."""
    limit, maximum = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit < MAX_OPEN_FILES:
        wanted = MAX_OPEN_FILES if maximum == resource.RLIM_INFINITY else min(MAX_OPEN_FILES, maximum)
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, maximum))
