"""The load that `benchmarks.server` puts on a server: trainers that launch runs, each over a connection of its own.

A run asks, reports, and ends, by the calls of Zeus' own client. So any server of the protocol can be measured. HTTP is
written by hand here, because a client library would take a large part of the processor time that is to be measured.
"""

import asyncio
import json
import random
import re
import time
from base64 import b64encode
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any
from urllib.parse import quote, unquote, urlsplit

BATCH_SIZES = [8 * 2**n for n in range(10)]
CHEAPEST = 5
"""Index of the batch size whose runs cost least. All others cost less than twice as much, so no run is stopped."""
EPOCHS = 5
TIMEOUT_S = 60
PORTS = {"http": 80, "https": 443}

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)")


@dataclass
class Record:
    """What some trainers have seen."""

    seconds: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """How long each answered call took, by the name of the call."""
    failures: Counter[str] = field(default_factory=Counter)

    @property
    def calls(self) -> int:
        """Number of calls, failed ones included."""
        return sum(map(len, self.seconds.values())) + self.failures.total()


class Connection:
    """A connection to a server. It is kept between requests, and opened again after the server has closed it."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in PORTS or parts.hostname is None:
            raise ValueError(f"{url!r} is not the address of a server; it starts with http:// or https://")
        self._address = (parts.hostname, parts.port or PORTS[parts.scheme])
        self._encrypted = parts.scheme == "https"
        self._prefix = parts.path.rstrip("/")
        login, _, host = parts.netloc.rpartition("@")
        self._headers = f"Host: {host}\r\n"
        if login:
            self._headers += f"Authorization: Basic {b64encode(unquote(login).encode()).decode()}\r\n"
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
        """Send a request. Returns the status and the body of the answer.

        Raises:
            OSError: the server is unreachable or has broken the connection off, or the time is up.
            EOFError: the answer ends too early.
        """
        content = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {self._prefix}{path} HTTP/1.1\r\n{self._headers}Content-Length: {len(content)}\r\n\r\n"
        kept = self._streams is not None
        try:
            return await self._exchange(head.encode() + content)
        except (ConnectionError, EOFError):
            if not kept:
                raise
            return await self._exchange(head.encode() + content)  # the server may close a kept connection at any time

    async def _exchange(self, request: bytes) -> tuple[int, bytes]:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                if self._streams is None:
                    self._streams = await asyncio.open_connection(*self._address, ssl=self._encrypted or None)
                reader, writer = self._streams
                writer.write(request)
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = _LENGTH.search(head)
                if length is None:
                    raise EOFError("the answer has no Content-Length")
                body = await reader.readexactly(int(length[1]))
        except BaseException:
            self.close()
            raise
        if b"\r\nconnection: close" in head:
            self.close()
        return int(head.split(b" ", 2)[1]), body

    def close(self) -> None:
        """Close the connection. The next request opens it again."""
        if self._streams is not None:
            self._streams[1].close()
        self._streams = None


class Trainer:
    """A machine that launches one run after the other."""

    def __init__(self, url: str, record: Record, seed: int = 0) -> None:
        self._connection = Connection(url)
        self._record = record
        self._noise = random.Random(seed)

    async def register(self, job_id: str, policy: str = "zeus") -> None:
        """Register a job. A server that does not know policies registers it all the same."""
        spec = {
            "job_id": job_id,
            "job_id_prefix": job_id,
            "batch_sizes": BATCH_SIZES,
            "default_batch_size": 64,
            "max_power": 250,
            "number_of_gpus": 1,
            "gpu_model": "none",
            "mab_seed": 1,
            "policy": policy,
        }
        await self._call("register", "POST", "/jobs", spec)

    async def run(self, job_id: str) -> None:
        """Launch a run: train, and end."""
        trial = await self.train(job_id)
        if trial is not None:
            await self._call("end", "PATCH", "/trials", trial)

    async def train(self, job_id: str, epochs: int = EPOCHS) -> dict[str, Any] | None:
        """Ask, and report after each epoch. The last epoch converges.

        Returns:
            The names of the trial; None: the ask failed.
        """
        answer = await self._call("ask", "GET", f"/jobs/batch_size?job_id={quote(job_id, safe='')}")
        if answer is None:
            return None
        trial = {name: answer[name] for name in ("job_id", "batch_size", "trial_number")}
        relative = 1 + 0.05 * abs(BATCH_SIZES.index(trial["batch_size"]) - CHEAPEST)
        energy = 1000 * relative * self._noise.uniform(0.95, 1.05) / epochs  # of an epoch
        for epoch in range(1, epochs + 1):
            is_last = epoch == epochs
            totals = {"energy": energy * epoch, "time": energy * epoch / 100, "current_epoch": epoch}
            report = trial | totals | {"metric": 0.9 if is_last else 0.1}
            name = "final report" if is_last else "report"
            await self._call(name, "POST", "/report", report, expected={"stop_train": is_last})
        return trial

    async def _call(
        self, name: str, method: str, path: str, body: Any = None, expected: Mapping[str, Any] = MappingProxyType({})
    ) -> Any:
        start = time.perf_counter()
        try:
            status, answer = await self._connection.send(method, path, body)
        except (OSError, EOFError) as error:
            self._record.failures[f"{name}: {type(error).__name__}"] += 1
            return None
        seconds = time.perf_counter() - start
        content = json.loads(answer) if 200 <= status < 300 else {}
        if not 200 <= status < 300 or any(content[key] != value for key, value in expected.items()):
            self._record.failures[f"{name}: {status} {answer[:100].decode(errors='replace')}"] += 1
            return None
        self._record.seconds[name].append(seconds)
        return content

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


@asynccontextmanager
async def trainers(url: str, count: int, record: Record) -> AsyncIterator[list[Trainer]]:
    """Have some trainers, and close their connections at the end."""
    crew = [Trainer(url, record, seed) for seed in range(count)]
    try:
        yield crew
    finally:
        for trainer in crew:
            trainer.close()
