"""A run in a process of its own, which a test lets report, and kills."""

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests import warm
from tests.servers import ROOT, environment


class Run:
    """A run in a process of its own."""

    def __init__(self, process: warm.Process) -> None:
        self._process = process

    @property
    def trial(self) -> int:
        """The number of its trial, once it has one."""
        return int(self._read("trial"))

    @property
    def verdict(self) -> str:
        """The reason of its verdict, once it has ended."""
        return self._read("verdict")

    def report(self) -> None:
        """Let it report once more."""
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()

    def _read(self, word: str) -> str:
        """Read its output up to the line that begins with a word. The libraries print other lines."""
        assert self._process.stdout is not None
        return next(line.split()[1] for line in self._process.stdout if line.startswith(word))

    def kill(self) -> None:
        """Kill it with SIGKILL."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()


@contextmanager
def run_process(url: str, fields: dict[str, Any], *metrics: float, **variables: str) -> Iterator[Run]:
    """Start a run in a process of its own, and kill it at the end if it is still running."""
    command = [warm.RUN, url, json.dumps(fields), *map(str, metrics)]
    with Path(os.devnull).open("w") as nowhere:
        run = Run(
            warm.start(command, cwd=ROOT, env=environment(**variables), stdout=None, stderr=nowhere, pipe_stdin=True)
        )
    try:
        yield run
    finally:
        run.kill()
