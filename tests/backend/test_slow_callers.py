"""Callers of a real server that begin requests and do not end them, and those that they must not keep out."""

import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path
from threading import Event, Thread
from time import monotonic

import pytest

from backend.web.serving import MOST_CONNECTIONS, WHOLE_REQUEST_S
from tests.servers import WaitressServer

HEAD = b"POST /report HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 60000\r\n\r\n"
BETWEEN_BYTES_S = 0.5
SLACK_S = 10  # of a busy machine


@pytest.fixture
def server(tmp_path: Path) -> Iterator[WaitressServer]:
    with WaitressServer(f"sqlite:///{tmp_path}/bso.db", tmp_path) as running:
        yield running


@contextmanager
def dripping(server: WaitressServer, callers: int, what: bytes) -> Iterator[None]:
    """So many callers whose requests come in bit by bit, for as long as they are listened to."""
    connections = [socket.create_connection(("127.0.0.1", server.port), timeout=30) for _ in range(callers)]
    over = Event()

    def drip() -> None:
        while not over.wait(BETWEEN_BYTES_S):
            for connection in connections:
                with suppress(OSError):
                    connection.sendall(what)

    for connection in connections:
        connection.sendall(HEAD if what == b" " else what)
    thread = Thread(target=drip)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        for connection in connections:
            connection.close()


@pytest.mark.parametrize(
    ("what", "callers", "answered_within_s"),
    [
        (b" ", MOST_CONNECTIONS - 100, 0),
        (b" ", MOST_CONNECTIONS + 100, WHOLE_REQUEST_S),
        (b"\r\n\r\n", MOST_CONNECTIONS + 100, WHOLE_REQUEST_S),
    ],
    ids=["as many as it listens to", "more", "more, of empty lines"],
)
def test_requests_that_come_in_byte_by_byte_do_not_keep_others_out(
    server: WaitressServer, what: bytes, callers: int, answered_within_s: float
) -> None:
    with dripping(server, callers, what):
        began = monotonic()
        assert server.calls("GET", "/healthz").status == 200
        assert monotonic() - began < answered_within_s + SLACK_S


def test_a_request_that_comes_in_parts_is_answered(server: WaitressServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(HEAD)
        for _ in range(60):
            connection.sendall(b" " * 1000)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 422"), answer


def test_a_connection_is_used_again_for_the_next_request(server: WaitressServer) -> None:
    with closing(HTTPConnection("127.0.0.1", server.port, timeout=30)) as connection:
        sockets = set()
        for _ in range(3):
            connection.request("GET", "/healthz")
            sockets.add(connection.sock)
            assert connection.getresponse().read() == b'{"status":"alive"}'
    assert len(sockets) == 1
