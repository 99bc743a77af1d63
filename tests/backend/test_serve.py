"""`python -m backend serve` as a process: addresses, output, logs, and passwords that must not be printed."""

import ctypes
import json
import os
import re
import select
import signal
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Barrier, Event
from typing import TYPE_CHECKING

import pytest
import requests
from flask import Flask
from sqlalchemy import make_url
from werkzeug.test import Client

from backend.web.serving import ANSWERED_AT_ONCE, STOPPING_S, limited
from tests.databases import MariaDB, connected, let_time_pass
from tests.servers import Server, backend, start

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

PASSWORD = "s3cret-p@ss"
PASSWORD_IN_URL = "s3cret-p%40ss"


@pytest.fixture
def user_url(mariadb: MariaDB) -> str:
    """The URL of a database with a user that has a password."""
    name = make_url(mariadb.database()).database
    mariadb.execute(
        f"CREATE USER {name}@'%' IDENTIFIED BY '{PASSWORD}'",
        f"GRANT ALL ON {name}.* TO {name}@'%'",
    )
    return f"mysql+pymysql://{name}:{PASSWORD_IN_URL}@127.0.0.1:{mariadb.port}/{name}"


def test_it_chooses_a_free_port_and_names_it(tmp_path: Path) -> None:
    server = Server(f"sqlite:///{tmp_path}/bso.db", tmp_path)
    server.port = 0
    with server:
        assert server.port
        assert server.calls("GET", "/readyz").status == 200


ELSEWHERE = "192.0.2.1"
"""An address reserved for documentation, which no machine has: the server warns, and then cannot listen."""


@pytest.mark.parametrize(
    ("guarded", "options", "warning"),
    [
        (False, [], "there is no access token yet, so on 192.0.2.1 the server answers nobody. Create a token"),
        (False, ["--insecure-open"], "anyone who reaches 192.0.2.1 may read and change"),
        (True, [], "other machines can reach 192.0.2.1, and this server speaks plain"),
    ],
    ids=["no token", "open", "token"],
)
def test_it_warns_when_it_listens_beyond_this_machine(
    guarded: bool, options: list[str], warning: str, tmp_path: Path
) -> None:
    if guarded:
        assert backend("token", "create", "--label=test", folder=tmp_path).returncode == 0
    done = backend("serve", f"--host={ELSEWHERE}", "--port=0", *options, folder=tmp_path)
    assert done.returncode == 1
    assert f"WARNING: {warning}" in done.stderr
    assert f"cannot listen on {ELSEWHERE}" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("host", "status"), [("127.0.0.1", 200), ("0.0.0.0", 401), ("", 401)])
def test_without_a_token_it_answers_only_on_an_address_of_this_machine(
    make_app: Callable[..., Flask], host: str, status: int
) -> None:
    client = Client(limited(make_app().wsgi_app, host))
    assert client.get("/jobs", environ_base={"REMOTE_ADDR": "127.0.0.1"}).status_code == status


def test_it_warns_of_nothing_on_its_own_machine(tmp_path: Path) -> None:
    with Server(f"sqlite:///{tmp_path}/bso.db", tmp_path) as server:
        assert "WARNING" not in server.read_log()


def test_it_says_where_it_listens_and_what_is_there(tmp_path: Path) -> None:
    with Server(f"sqlite:///{tmp_path}/bso.db", tmp_path) as server:
        assert server.process is not None
        assert server.process.stdout is not None
        output = "".join(server.process.stdout.readline() for _ in range(3))
        for path in ("/admin", "/openapi/swagger"):
            assert f": {server.url}{path}\n" in output
            assert requests.get(f"{server.url}{path}", timeout=30).status_code == 200


def test_a_port_in_use_is_an_error_without_a_traceback(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = backend("serve", f"--port={taken.getsockname()[1]}", folder=tmp_path)
    assert done.returncode == 1
    assert "cannot listen on 127.0.0.1" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_on_a_signal(tmp_path: Path, how: signal.Signals) -> None:
    server = Server(f"sqlite:///{tmp_path}/bso.db", tmp_path, cold=True)
    server.start()
    assert server.calls("GET", "/readyz").status == 200
    assert server.stop(how) == 0


@pytest.mark.parametrize("receiver", ["main process", "worker"])
def test_it_stops_on_a_signal_that_another_thread_has_received(tmp_path: Path, receiver: str) -> None:
    with Server(f"sqlite:///{tmp_path}/bso.db", tmp_path) as server:
        assert server.process is not None
        pid = server.process.pid if receiver == "main process" else server.worker_pids()[0]
        ended = os.pidfd_open(pid)
        other = next(int(task.name) for task in Path(f"/proc/{pid}/task").iterdir() if int(task.name) != pid)
        assert ctypes.CDLL(None).tgkill(pid, other, signal.SIGTERM) == 0
        assert select.select([ended], [], [], 30)[0]
        os.close(ended)


def test_a_worker_ends_with_a_server_that_is_killed_even_while_a_request_comes_in(tmp_path: Path) -> None:
    with (
        Server(f"sqlite:///{tmp_path}/bso.db", tmp_path) as server,
        socket.create_connection(("127.0.0.1", server.port)) as connection,
    ):
        connection.sendall(b"POST /report HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
        assert server.calls("GET", "/healthz").status == 200
        assert server.process is not None
        (worker,) = server.worker_pids()
        ended = os.pidfd_open(worker)
        server.process.send_signal(signal.SIGKILL)
        assert select.select([ended], [], [], 30)[0]
        os.close(ended)


def test_a_server_that_is_stopped_while_it_starts_ends_at_once(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/bso.db"
    assert backend("db", "upgrade", f"--database-url={url}", folder=tmp_path).returncode == 0
    server = Server(url, tmp_path, workers=4)
    for _ in range(10):  # the moment at which a worker could miss the signal is short
        with server.log.open("w") as log:
            process = start(server.command(), tmp_path, stdout=None, stderr=log)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        while not children.read_text():  # the first worker has begun to load
            assert process.poll() is None
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) in (0, 1)
        assert time.monotonic() - began < STOPPING_S


def test_the_environment_passes_for_no_part_of_a_request(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/bso.db"
    token = backend("token", "create", "--label=t", f"--database-url={url}", folder=tmp_path).stdout.strip()
    with Server(url, tmp_path, HTTP_AUTHORIZATION=f"Bearer {token}") as server:
        assert server.calls("GET", "/jobs").status == 401


def test_a_worker_answers_a_few_requests_at_a_time() -> None:
    running, waiting, over = [], Barrier(ANSWERED_AT_ONCE + 1), Event()

    def application(environ: "WSGIEnvironment", start_response: "StartResponse") -> list[bytes]:
        running.append(environ)
        if len(running) <= ANSWERED_AT_ONCE:
            waiting.wait(30)
            assert over.wait(30)
        start_response("200 OK", [])
        return []

    client = Client(limited(application, "127.0.0.1"))
    with ThreadPoolExecutor(2 * ANSWERED_AT_ONCE) as pool:
        answers = [pool.submit(client.get, "/") for _ in range(2 * ANSWERED_AT_ONCE)]
        waiting.wait(30)
        assert len(running) == ANSWERED_AT_ONCE
        over.set()
        assert [answer.result().status_code for answer in answers] == [200] * 2 * ANSWERED_AT_ONCE


def test_a_worker_that_is_killed_is_replaced(tmp_path: Path) -> None:
    with Server(f"sqlite:///{tmp_path}/bso.db", tmp_path, workers=2) as server:
        killed, other = before = server.worker_pids()
        os.kill(killed, signal.SIGKILL)
        while len(after := server.worker_pids()) < 2 or set(after) == set(before):
            with suppress(OSError):  # a connection that the killed worker had not accepted yet
                server.calls("GET", "/healthz")
        assert killed not in after
        assert other in after


def test_a_body_of_20_mb_is_refused_by_a_real_server(tmp_path: Path) -> None:
    body = json.dumps({"job_id": "train", "run_id": "x" * 20_000_000})
    with Server(f"sqlite:///{tmp_path}/bso.db", tmp_path) as server:
        answer = server.calls.send("POST", "/trials", body)
        assert answer.status == 413
        assert answer.message
        assert server.calls("GET", "/healthz").status == 200


def test_a_body_in_chunks_is_read_like_any_other(tmp_path: Path) -> None:
    with (
        Server(f"sqlite:///{tmp_path}/bso.db", tmp_path) as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection,
    ):
        server.calls.register()
        body = b'{"job_id": "train", "run_id": "run"}'
        head = b"POST /trials HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
        chunks = b"%x\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n" % (5, body[:5], len(body) - 5, body[5:])
        connection.sendall(head + chunks)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
        assert answer.startswith(b"HTTP/1.1 200"), answer


def test_its_password_is_printed_nowhere(user_url: str, mariadb: MariaDB, tmp_path: Path) -> None:
    with Server(user_url, tmp_path, ZEUS_BSO_LOG_LEVEL="DEBUG", ZEUS_BSO_LOG_FORMAT="json") as server:
        calls = server.calls
        assert calls.register().status == 201
        assert server.process is not None
        assert server.process.stdout is not None
        output = server.process.stdout.readline() + server.process.stdout.readline()
        name = user_url.rpartition("/")[2]
        mariadb.execute(f"ALTER USER {name}@'%' ACCOUNT LOCK", *_kill(mariadb, name))
        for answer in (calls.ask(), calls("GET", "/jobs"), calls("GET", "/readyz")):
            assert answer.status == 503
            assert "s3cret" not in answer.text
    assert "Data in mysql+pymysql://" in output
    assert "failed" in server.read_log()
    for text in (output, server.read_log()):
        assert "s3cret" not in text


def test_the_logs_are_lines_of_json(tmp_path: Path) -> None:
    with Server(f"sqlite:///{tmp_path}/bso.db", tmp_path, ZEUS_BSO_LOG_FORMAT="json") as server:
        server.calls("GET", "/healthz")
    events = [json.loads(line) for line in server.read_log().splitlines()]
    request = next(event for event in events if event["event"] == "request")
    assert (request["method"], request["path"], request["status"]) == ("GET", "/healthz", 200)
    assert request["request_id"]


def test_the_replay_command_checks_whether_the_decisions_follow(database_url: str, tmp_path: Path) -> None:
    with Server(database_url, tmp_path) as server:
        calls = server.calls
        calls.register()
        calls.converge(calls.trial())
        lost = calls.trial()
        let_time_pass(database_url, "train", lost["trial_number"], 3601)
        calls.converge(calls.trial())
    good = backend("replay", "train", f"--database-url={database_url}", folder=tmp_path)
    assert good.returncode == 0, good.stderr
    assert re.search(r"\b3 trials of train", good.stdout)
    with connected(database_url) as connection:
        connection.exec_driver_sql("UPDATE trials SET batch_size = 32 WHERE number = 1")
    bad = backend("replay", "train", f"--database-url={database_url}", folder=tmp_path)
    assert bad.returncode == 1
    assert "trial 1" in bad.stderr
    assert backend("replay", "nobody", f"--database-url={database_url}", folder=tmp_path).returncode == 1


def _kill(mariadb: MariaDB, user: str) -> list[str]:
    with connected(f"mysql+pymysql://root@127.0.0.1:{mariadb.port}/mysql") as connection:
        ids = connection.exec_driver_sql(
            "SELECT id FROM information_schema.processlist WHERE user = %s", (user,)
        ).scalars()
        return [f"KILL {number}" for number in ids]
