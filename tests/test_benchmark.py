"""The benchmark of the server: what it measures, and that it hides no failure."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from benchmarks import tables
from benchmarks.load import Record, trainers
from benchmarks.processes import cpu_seconds
from benchmarks.tables import Sample
from tests.databases import MariaDB
from tests.servers import PYTHON, Server, start

MEASURED = ("own jobs, 1 client", "own jobs, 3 clients", "one job, 3 clients", "gp-ucb, 5 trials", "one of 9 jobs")


def rows(markdown: str) -> list[list[str]]:
    return [line.strip("| ").split(" | ") for line in markdown.splitlines() if line.startswith("|")]


def test_the_benchmark_measures_the_images_server_in_turns_with_another(mariadb: MariaDB, tmp_path: Path) -> None:
    written, output, errors = tmp_path / "tables.md", tmp_path / "output", tmp_path / "errors"
    with Server(mariadb.database(), tmp_path) as other, output.open("w") as out, errors.open("w") as err:
        assert other.process is not None
        command = [
            *(*PYTHON, "benchmarks.server", f"--database-url={mariadb.database()}", f"--markdown={written}"),
            *(f"--against={other.url}", f"--server-pid={other.process.pid}"),
            *(f"--database-pid={mariadb.pid}", "--rounds=2", "--clients", "1", "3", "--runs=6"),
            *("--policies", "gp-ucb", "--sizes", "5", "--jobs=9"),
        ]
        process = start(command, tmp_path, stdout=out, stderr=err, cold=True)
        assert process.wait(timeout=200) == 0, errors.read_text()
    markdown = written.read_text()
    assert "2 worker processes, mysql 10." in markdown
    assert "Failed" not in markdown
    table = rows(markdown)
    for subject in MEASURED:
        of_subject = {row[1]: row[2:] for row in table if row[0] == subject}
        assert list(of_subject)[:2] == ["this", "other"]
        assert len(of_subject) == 3, "the ratio"
        assert "–" not in [figure for cells in of_subject.values() for cell in cells for figure in cell.split(", ")]
    (report,) = [row[1:] for row in table if row[0] == "report after which the run goes on"]
    assert len(report) == 4, "two policies on two databases"
    assert all(int(cell) > 0 for cell in report)
    turns = [line.split(":")[0] for line in output.read_text().splitlines() if line.startswith("one job, 3 clients")]
    assert turns == [f"one job, 3 clients, {name}" for name in ("this", "other", "other", "this")]


class Stub:
    """A server that gives one answer to all requests, and counts its connections."""

    def __init__(self) -> None:
        self.status, self.body, self.keeps, self.connections, self.headers = 200, b"{}", True, 0, []
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                stub.connections += 1

            def handle_any(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                stub.headers.append(self.headers)
                self.send_response(stub.status)
                self.send_header("Content-Length", str(len(stub.body)))
                self.end_headers()
                self.wfile.write(stub.body)
                self.close_connection = not stub.keeps  # without a word, as after a timeout

            do_GET = do_POST = do_PATCH = handle_any  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self.server.server_port}"


@pytest.fixture
def stub() -> Iterator[Stub]:
    stub = Stub()
    thread = threading.Thread(target=stub.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield stub
    stub.server.shutdown()
    thread.join()
    stub.server.server_close()


def run_in_a_loop_of_its_own(play: Coroutine[Any, Any, Record]) -> Record:
    """Run a coroutine in another thread. Playwright's tests leave an event loop in the thread of the tests."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, play).result()


def register(url: str, times: int) -> Record:
    """Let one trainer register jobs."""

    async def play() -> Record:
        record = Record()
        async with trainers(url, 1, record) as [trainer]:
            for number in range(times):
                await trainer.register(f"job-{number}")
        return record

    return run_in_a_loop_of_its_own(play())


@pytest.mark.parametrize(("keeps", "connections"), [(True, 1), (False, 3)])
def test_a_client_keeps_its_connection_for_as_long_as_the_server_does(
    stub: Stub, keeps: bool, connections: int
) -> None:
    stub.keeps = keeps
    record = register(f"http://{stub.address}", times=3)
    assert not record.failures
    assert record.calls == 3
    assert stub.connections == connections


def test_a_token_in_the_address_is_sent(stub: Stub) -> None:
    register(f"http://bso:t%2Fn@{stub.address}", times=1)
    assert stub.headers[0]["Authorization"] == "Basic YnNvOnQvbg=="  # bso:t/n
    assert stub.headers[0]["Host"] == stub.address


def test_calls_that_fail_are_named_and_do_not_count_as_speed(stub: Stub) -> None:
    stub.status, stub.body = 500, b'{"message": "it broke"}'
    record = register(f"http://{stub.address}", times=2)
    measured = tables.nothing_yet()
    sample = Sample(record, wall_s=1.0, client_s=0.1, server_s=0.1, database_s=0.1)
    measured["one job"]["this"].append(sample)
    assert record.calls == 2
    assert sample.calls_per_s == 0
    assert 'Failed 2 times: this: register: 500 {"message": "it broke"}' in tables.of_load(measured)


def test_a_run_that_is_stopped_too_early_is_a_failure(stub: Stub) -> None:
    stub.body = b'{"job_id": "train", "batch_size": 64, "trial_number": 1, "stop_train": true}'

    async def train() -> Record:
        record = Record()
        async with trainers(f"http://{stub.address}", 1, record) as [trainer]:
            await trainer.train("train", epochs=3)
        return record

    record = run_in_a_loop_of_its_own(train())
    assert sum(record.failures.values()) == 2
    assert {name: len(times) for name, times in record.seconds.items()} == {"ask": 1, "final report": 1}


def test_a_server_that_is_not_there_is_a_failure() -> None:
    assert register("http://127.0.0.1:1", times=1).failures == {"register: ConnectionRefusedError": 1}


@pytest.mark.parametrize(("client_s", "doubtful"), [(0.2, False), (0.9, True)])
def test_a_run_says_if_the_clients_were_near_a_core(client_s: float, doubtful: bool) -> None:
    measured = tables.nothing_yet()
    measured["one job"]["this"].append(Sample(Record(), 1.0, client_s, 0.1, 0.1))
    text = tables.of_load(measured)
    assert f"at most {client_s:.2f} of a core" in text
    assert ("may have limited" in text) is doubtful


def test_ratios_are_those_of_each_round() -> None:
    measured = tables.nothing_yet()
    for this_s, other_s in ((1.0, 2.0), (2.0, 2.0), (4.0, 1.0)):
        for name, wall_s in (("this", this_s), ("other", other_s)):
            record = Record()
            record.seconds["ask"] = [0.1] * 8
            measured["load"][name].append(Sample(record, wall_s, 0.1, 0.1, 0.1))
    this, other, ratio = rows(tables.of_load(measured))[2:]
    assert this[2] == "4.00 (2.00–8.00)"
    assert other[2] == "4.00 (4.00–8.00)"
    assert ratio[1:3] == ["ratio", "1.00 (0.25–2.00)"]


def test_processor_time_includes_that_of_children() -> None:
    spin = "import time\nwhile time.process_time() < 0.5: pass\nprint(flush=True); input()"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {spin!r}])"
    with subprocess.Popen([sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert 0.5 <= cpu_seconds([process.pid]) < 5
        process.communicate(b"\n")
