"""Callers of a real server that start requests and do not finish them must not keep other callers out."""

import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path
from threading import Event, Thread
from time import monotonic

import pytest

from backend.web.serving import MAX_CONNECTIONS, SILENCE_S
from tests.servers import Server

HEAD = b"POST /report HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 60000\r\n\r\n"
BETWEEN_BYTES_S = 0.5
SLACK_S = 10  # of a busy machine


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(f"sqlite:///{tmp_path}/bso.db", tmp_path) as running:
        yield running


@contextmanager
def half_sent(server: Server, callers: int, beginning: bytes) -> Iterator[list[socket.socket]]:
    """Open connections on which a request has begun."""
    connections = [socket.create_connection(("127.0.0.1", server.port), timeout=30) for _ in range(callers)]
    for connection in connections:
        connection.sendall(beginning)
    try:
        yield connections
    finally:
        for connection in connections:
            connection.close()


@contextmanager
def dripping(connections: list[socket.socket], piece: bytes) -> Iterator[None]:
    """Send a piece on every connection again and again, as long as the server listens."""
    over = Event()

    def drip() -> None:
        while not over.wait(BETWEEN_BYTES_S):
            for connection in connections:
                with suppress(OSError):
                    connection.sendall(piece)

    thread = Thread(target=drip)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize(
    ("piece", "callers"),
    [(b" ", MAX_CONNECTIONS - 300), (b" ", MAX_CONNECTIONS - 100), (b"\r\n\r\n", MAX_CONNECTIONS - 100)],
    ids=["some", "many", "many, of empty lines"],
)
def test_requests_that_come_in_byte_by_byte_do_not_keep_others_out(server: Server, piece: bytes, callers: int) -> None:
    with half_sent(server, callers, HEAD if piece == b" " else piece) as connections, dripping(connections, piece):
        began = monotonic()
        assert server.calls("GET", "/healthz").status == 200
        assert monotonic() - began < SLACK_S


def test_half_sent_headers_on_all_connections_keep_others_out_until_they_are_late(server: Server) -> None:
    with half_sent(server, MAX_CONNECTIONS + 100, HEAD[:-4]):
        began = monotonic()
        assert server.calls("GET", "/healthz").status == 200
        assert monotonic() - began < SILENCE_S + SLACK_S


def test_a_request_that_comes_in_parts_is_answered(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(HEAD)
        for _ in range(60):
            connection.sendall(b" " * 1000)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 422"), answer


def test_a_connection_is_used_again_for_the_next_request(server: Server) -> None:
    with closing(HTTPConnection("127.0.0.1", server.port, timeout=30)) as connection:
        sockets = set()
        for _ in range(3):
            connection.request("GET", "/healthz")
            sockets.add(connection.sock)
            assert connection.getresponse().read() == b'{"status":"alive"}'
    assert len(sockets) == 1
