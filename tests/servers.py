"""Real server processes: `python -m backend serve`."""

import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryFile
from types import TracebackType
from typing import Self, TextIO

from tests import warm
from tests.calls import Calls
from tests.databases import free_port

ROOT = Path(__file__).resolve().parent.parent
PYTHON = (sys.executable, "-m")


def environment(**changes: str) -> dict[str, str]:
    """Return the environment of a process: without settings from this shell, with the code of this checkout."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("ZEUS_BSO_")}
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return inherited | {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1"} | changes


def start(
    command: Sequence[str],
    folder: Path,
    *,
    stdout: TextIO | None,
    stderr: TextIO,
    cold: bool = False,
    **variables: str,
) -> "subprocess.Popen[str] | warm.Process":
    """Start a command in a folder, in a new process session.

    Args:
        command: the command. A module of this Python starts warm, see `tests.warm`.
        folder: the folder that the command runs in. A `.env` file there counts.
        stdout: file for the standard output; None: a pipe.
        stderr: file for the standard error.
        cold: start a new Python process, as users do.
        variables: environment variables to add to those of this shell.
    """
    variables = environment(**variables)
    if not cold and tuple(command[:2]) == PYTHON:
        return warm.start(command[2:], cwd=folder, env=variables, stdout=stdout, stderr=stderr)
    return subprocess.Popen(
        command,
        cwd=folder,
        env=variables,
        stdout=stdout or subprocess.PIPE,
        stderr=stderr,
        text=True,
        start_new_session=True,
    )


def backend(*arguments: str, folder: Path, cold: bool = False, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Run `python -m backend …` in a folder until it ends."""
    with TemporaryFile("w+") as stdout, TemporaryFile("w+") as stderr:
        command = [*PYTHON, "backend", *arguments]
        process = start(command, folder, stdout=stdout, stderr=stderr, cold=cold, **variables)
        try:
            status = process.wait(timeout=120)
        finally:
            process.send_signal(signal.SIGKILL)
        stdout.seek(0)
        stderr.seek(0)
        return subprocess.CompletedProcess(command, status, stdout.read(), stderr.read())


class Server:
    """`python -m backend serve` as a context manager. Its log is the file `log` in `folder`."""

    def __init__(
        self, database_url: str, folder: Path, *, workers: int = 1, cold: bool = False, **variables: str
    ) -> None:
        self.database_url = database_url
        self.folder = folder
        self.workers = workers
        self.cold = cold
        self.variables = variables
        self.port = free_port()
        self.log = folder / f"server-{self.port}.log"
        self.process: subprocess.Popen[str] | warm.Process | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The URL of the server."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def calls(self) -> Calls:
        """The protocol's calls to this server. Threads may share the object."""
        return Calls.over_http(self.url)

    def command(self) -> list[str]:
        """Return the command that serves on `port`; 0: on a free one."""
        options = (f"--port={self.port}", f"--workers={self.workers}", f"--database-url={self.database_url}")
        return [*PYTHON, "backend", "serve", *options]

    def start(self) -> None:
        """Start the server and wait until it listens. A restart uses the same port."""
        with self.log.open("a") as log:
            process = start(self.command(), self.folder, stdout=None, stderr=log, cold=self.cold, **self.variables)
        self.process = process
        assert process.stdout is not None
        for line in process.stdout:
            if match := re.match(r"Listening on http://127\.0\.0\.1:(\d+)", line):
                self.port = int(match[1])
                return
        raise AssertionError(f"the server ended with {process.wait()}: {self.read_log()}")

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Stop the server with a signal. Returns its exit status."""
        return self._end(how)

    def kill(self) -> None:
        """Kill the server and its workers with SIGKILL, and wait until none of them listens any more."""
        is_running = self.process is not None and self.process.poll() is None
        workers = [os.pidfd_open(pid) for pid in self.worker_pids()] if is_running else []
        self._end(signal.SIGKILL)
        for ended in workers:
            select.select([ended], [], [])
            os.close(ended)

    def read_log(self) -> str:
        """Return the server's log so far."""
        return self.log.read_text(errors="replace")

    def worker_pids(self) -> list[int]:
        """Return the process ids of the workers."""
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in children.split()]

    def _end(self, sent: signal.Signals) -> int:
        process, self.process = self.process, None
        if process is None:
            return 0
        try:
            if sent is signal.SIGKILL:
                os.killpg(process.pid, sent)  # the process group holds the server and its workers
            else:
                process.send_signal(sent)
            return process.wait(timeout=30)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            if process.stdout:
                process.stdout.close()
