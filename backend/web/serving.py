"""The HTTP server behind `python -m backend serve`: granian, its processes and its limits.

The main process starts the workers and replaces those that end. It answers no request itself.
docs/server.md explains the limits.
"""

import ctypes
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterable
from functools import partial
from io import BytesIO
from threading import BoundedSemaphore
from typing import TYPE_CHECKING

import structlog
from granian import Granian
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.log import LogLevels

from lightning_bso.wire import MAX_BODY_BYTES

if TYPE_CHECKING:
    from _typeshed.wsgi import InputStream, StartResponse, WSGIApplication, WSGIEnvironment

log = structlog.get_logger(__name__)

ANSWERED_AT_ONCE = 4
"""Requests that a worker process answers at a time. Further ones wait. The lines of an export do not count."""
MAX_CONNECTIONS = 600
"""Connections of a worker process. Further ones wait. Each may have a thread that waits for the rest of a request."""
SILENCE_S = 10
"""A connection without a request is closed after this long, and so is one on which a request's headers are late."""
MAX_DROPPED_BYTES = 64 * 1024 * 1024
"""Of a larger body the server takes no more than this. Then it answers and closes the connection."""
STOPPING_S = 5
"""A stopping worker process may answer the requests that have arrived for this long."""
_WATCH_INTERVAL_S, _WAKE_INTERVAL_S = 0.02, 0.5
_LOGGING = {"version": 1, "handlers": {}, "formatters": {}, "loggers": {"_granian": {"propagate": True}}}
"""granian's loggers without its handlers, so that `logs` formats their lines."""
_ENDING = (signal.SIGINT, signal.SIGTERM)
_PR_SET_PDEATHSIG = 1
_OF_REQUESTS = ("AUTH_", "CONTENT_", "HTTP_", "REMOTE_", "ZEUS_BSO_")
"""Beginnings of the names of variables that a request must not take from the environment."""


class CannotListen(Exception):
    """Raised when the address to listen on is in use or not available. The message gives the reason."""


def serve(
    make_application: "Callable[[], WSGIApplication]",
    host: str,
    port: int,
    *,
    workers: int,
    announce: Callable[[int], None],
) -> None:
    """Serve until Ctrl-C or SIGTERM, which let the requests that have arrived be answered.

    Args:
        make_application: makes the application of a worker process. It can be pickled.
        host: address or name to listen on.
        port: port to listen on; 0: a free one.
        workers: number of worker processes.
        announce: called with the port as soon as a worker process listens.

    Raises:
        CannotListen: the address is in use or not available.
    """
    address, held = _take_port(host, port)
    port = held.getsockname()[1]
    server = Granian(
        "backend",  # only a name: `_load` makes the application
        address=address,
        port=port,
        interface=Interfaces.WSGI,
        http=HTTPModes.http1,
        websockets=False,
        workers=workers,
        blocking_threads=MAX_CONNECTIONS,
        backpressure=MAX_CONNECTIONS,
        backlog=2048,
        http1_settings=HTTP1Settings(header_read_timeout=SILENCE_S * 1000),
        respawn_failed_workers=True,
        workers_kill_timeout=STOPPING_S,
        log_level=LogLevels.error,  # its warnings are advice about the limits above
        log_dictconfig=_LOGGING,
    )
    _call_when_listening(address, port, partial(announce, port))
    os.register_at_fork(
        before=partial(signal.pthread_sigmask, signal.SIG_BLOCK, _ENDING),
        after_in_parent=partial(signal.pthread_sigmask, signal.SIG_UNBLOCK, _ENDING),
        after_in_child=_end_on_signals,
    )
    loader = partial(_load, make_application, host, os.getpid())
    with held:
        if sys.platform != "linux":  # there the workers share one socket, which shares its port with none
            held.close()
        try:
            server.serve(target_loader=loader, wrap_loader=False)
        finally:
            # Python takes the handler away before it ends, and without one the signal kills.
            signal.setitimer(signal.ITIMER_REAL, 0)


def limited(application: "WSGIApplication", host: str) -> "WSGIApplication":
    """Let an application answer a few requests at a time, and read each request's body before it counts as one.

    So callers that send slowly keep nobody out. granian gives each its own thread, which waits here.

    Args:
        application: the WSGI application.
        host: the address that the server listens on. `auth` reads it.
    """
    slots = BoundedSemaphore(ANSWERED_AT_ONCE)

    def call(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        environ["SERVER_NAME"] = host
        environ["wsgi.input"] = BytesIO(_read(environ["wsgi.input"]))
        with slots:
            return application(environ, start_response)

    return call


def _end_on_signals() -> None:
    """Let a new process end on signals until granian sets its handlers. Those from the main process do nothing here.

    `serve` blocks both signals during a fork, so that one sent to the new process waits for this and is not lost.
    """
    for ending in _ENDING:
        signal.signal(ending, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)


def _wake_regularly() -> None:
    """Wake the main thread from time to time, so that it handles signals that another thread has received.

    Python runs handlers in the main thread alone, and a signal to another thread does not wake it.
    """
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, _WAKE_INTERVAL_S, _WAKE_INTERVAL_S)


def _read(stream: "InputStream") -> bytes:
    """Read a body. One that is too large is cut after its first byte too many, so that the application refuses it.

    The rest is received and dropped, since a caller who still sends would not see the answer.
    """
    body = stream.read(MAX_BODY_BYTES + 1)
    dropped = 0
    while len(body) > MAX_BODY_BYTES and dropped < MAX_DROPPED_BYTES and (piece := stream.read(MAX_BODY_BYTES)):
        dropped += len(piece)
    return body


def _load(make_application: "Callable[[], WSGIApplication]", host: str, main_pid: int) -> "WSGIApplication":
    """Make the application of a worker process, which ends with the main process."""
    _wake_regularly()
    if sys.platform == "linux":
        # Not SIGTERM: it waits for the requests that have begun, and nobody would limit that any more.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != main_pid:  # it has ended before
            sys.exit(1)
    try:
        application = make_application()
    except Exception:
        log.exception("worker_failed")
        sys.exit(1)
    # granian adds the environment to each request's variables, where some would pass for parts of the request.
    for name in [name for name in os.environ if name.startswith(_OF_REQUESTS)]:
        del os.environ[name]
    return limited(application, host)


def _take_port(host: str, port: int) -> tuple[str, socket.socket]:
    """Bind a socket to an address, so that no other program gets its port. The workers listen on it with theirs.

    Returns:
        The address as a number, and the socket.

    Raises:
        CannotListen: the address is in use or not available.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        if port:
            # granian's sockets share their port. Only a socket that does not share finds that the port is taken.
            with socket.socket(family, kind, protocol) as alone:
                alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                alone.bind(address)
        held = socket.socket(family, kind, protocol)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind(address)
    except OSError as error:
        raise CannotListen(f"cannot listen on {host}:{port}: {error.strerror}") from error
    return str(address[0]), held


def _call_when_listening(address: str, port: int, announce: Callable[[], None]) -> None:
    """Call a function once something listens. A timer's signal asks, since threads and forks don't go together."""

    def look(*_: object) -> None:
        try:
            socket.create_connection((address, port), timeout=1).close()
        except OSError:
            return
        _wake_regularly()
        announce()

    signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, _WATCH_INTERVAL_S, _WATCH_INTERVAL_S)
