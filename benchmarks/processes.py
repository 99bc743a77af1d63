"""The server that `benchmarks.server` starts, and the processor time of processes. Requires Linux."""

import json
import os
import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from tests.servers import ROOT, Server

DOCKERFILE = ROOT / "docker" / "Dockerfile.server"
WORKERS = 2


class ImageServer(Server):
    """The server as the image runs it, but with two workers, and on loopback only."""

    def __init__(self, database_url: str, folder: Path) -> None:
        metrics = folder / "metrics"
        metrics.mkdir()
        variables = {"PROMETHEUS_MULTIPROC_DIR": str(metrics), "ZEUS_BSO_DATABASE_URL": database_url}
        super().__init__(database_url, folder, workers=WORKERS, cold=True, **variables)

    def command(self) -> list[str]:
        """Return the image's command, with other workers and another address."""
        (line,) = [line for line in DOCKERFILE.read_text().splitlines() if line.startswith("CMD ")]
        _, *arguments = json.loads(line.removeprefix("CMD "))
        for option, value in (("--workers", WORKERS), ("--host", "127.0.0.1"), ("--port", self.port)):
            arguments[arguments.index(option) + 1] = str(value)
        return [sys.executable, "-m", "backend", *arguments]


def cpu_seconds(pids: Iterable[int]) -> float:
    """Return the processor time that processes and their descendants have used so far. NaN: no process is named."""
    waiting = list(pids)
    if not waiting:
        return float("nan")
    children, ticks = defaultdict(list), {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name, in parentheses, may contain spaces. The state follows, then the parent.
            fields = path.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):  # it has ended
            continue
        pid = int(path.parent.name)
        children[int(fields[1])].append(pid)
        ticks[pid] = int(fields[11]) + int(fields[12])
    found: set[int] = set()
    while waiting:
        pid = waiting.pop()
        if pid not in found:
            found.add(pid)
            waiting += children[pid]
    return sum(ticks.get(pid, 0) for pid in found) / os.sysconf("SC_CLK_TCK")
