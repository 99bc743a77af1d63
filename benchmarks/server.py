"""Measure what a server takes: calls per second, the time of calls, processor time, and round trips to the database.

    python -m benchmarks.server [--serve] [--against http://127.0.0.1:8001 --server-pid 4711] [--markdown FILE]

Starts the server of this checkout, as the image does but with two worker processes, on a MariaDB of its own. With
`--against`, a second server that runs already gets the same load in turns with this one. That may be any server that
speaks the protocol, for example an earlier release. A token goes into its address, as in http://bso:TOKEN@host:port.

- `load`: clients that launch runs, each client for a job of its own, or all of them for one job.
- `growth`: the time of calls for a job that has 100, 1,000 and 10,000 trials.
- `jobs`: the time of calls for random jobs among 10,000.
- `statements`: the round trips to the database, for this checkout only.

Clients, servers and database share the machine, so the figures of a run compare with each other, not with those of
another machine or hour.
"""

import argparse
import asyncio
import contextlib
import datetime
import os
import platform
import random
import shutil
import signal
import sys
import tempfile
import time
import uuid
from collections.abc import Awaitable, Iterator, Sequence
from itertools import product
from pathlib import Path

from benchmarks import statements, tables
from benchmarks.load import Record, Trainer, trainers
from benchmarks.processes import ImageServer, cpu_seconds
from benchmarks.tables import Measured, Sample, Target
from tests.databases import connected, migrate, start_mariadb
from tests.servers import Server

PARTS = ("load", "growth", "jobs", "statements")
POLICIES = ("zeus", "gp-ucb")
MAX_RUNS = 50
"""Most runs in a round of `growth`, so that the job hardly grows while it is measured."""
REGISTERING = 8
"""Number of clients that register the many jobs."""


async def measure(target: Target, record: Record, play: Awaitable[object]) -> Sample:
    """Wait until the clients are done, and return what that took."""

    def used() -> tuple[float, ...]:
        processes = (cpu_seconds(target.pids), cpu_seconds(target.database_pids))
        return time.perf_counter(), time.process_time(), *processes

    before = used()
    await play
    return Sample(record, *(after - start for after, start in zip(used(), before, strict=True)))


def in_turns(targets: Sequence[Target], number: int) -> Sequence[Target]:
    """Return the servers in the order of a round. Each round turns it around."""
    return targets[::-1] if number % 2 else targets


def new_id() -> str:
    """Return an id that no job has."""
    return f"benchmark-{uuid.uuid4().hex[:12]}"


def note(subject: str, target: Target, sample: Sample) -> Sample:
    """Print a sample as it comes."""
    print(f"{subject}, {target.name}: {tables.in_short(sample)}", flush=True)
    return sample


async def put_load(target: Target, clients: int, runs: int, *, one_job: bool) -> Sample:
    """Let clients launch runs all at once, each client for a job of its own or all for one."""
    record, first = Record(), new_id()
    job_ids = [first if one_job else f"{first}-{number}" for number in range(clients)]
    async with trainers(target.url, clients, record) as crew:
        for trainer, job_id in zip(crew, job_ids, strict=True):
            await trainer.register(job_id)
        record.seconds.clear()

        async def play(number: int) -> None:
            for _ in range(max(1, runs // clients)):
                await crew[number].run(job_ids[number])

        return await measure(target, record, asyncio.gather(*map(play, range(clients))))


async def measure_load(targets: Sequence[Target], rounds: int, clients: Sequence[int], runs: int) -> Measured:
    """Measure all loads in each round."""
    loads = [(False, n) for n in clients] + [(True, n) for n in clients if n > 1]
    measured: Measured = tables.nothing_yet()
    for number in range(rounds):
        for one_job, n in loads:
            subject = f"{'one job' if one_job else 'own jobs'}, {n} client{'s' * (n > 1)}"
            for target in in_turns(targets, number):
                sample = await put_load(target, n, runs, one_job=one_job)
                measured[subject][target.name].append(note(subject, target, sample))
    return measured


async def time_runs(target: Target, job_ids: Sequence[str]) -> Sample:
    """Let one client ask, report once on the way and once at the end, for each of the jobs."""
    record = Record()
    async with trainers(target.url, 1, record) as [trainer]:

        async def play() -> None:
            for job_id in job_ids:
                await trainer.train(job_id, epochs=2)

        return await measure(target, record, play())


async def new_job(target: Target, policy: str, trials: int) -> str:
    """Register a job, and give it trials. Returns its id."""
    job_id, record, start = new_id(), Record(), time.perf_counter()
    async with trainers(target.url, 1, record) as [trainer]:
        await trainer.register(job_id, policy)
        for _ in range(trials):
            await trainer.train(job_id, epochs=1)
    if record.failures:
        sys.exit(f"{target.name}: the job does not grow: {record.failures.most_common(1)}")
    print(f"{target.name}: {trials:,} trials in {time.perf_counter() - start:.0f} s", flush=True)
    return job_id


async def measure_growth(
    targets: Sequence[Target], rounds: int, policies: Sequence[str], sizes: Sequence[int], runs: int
) -> Measured:
    """Grow a job for each policy and size, then measure all of them in each round."""
    measured: Measured = tables.nothing_yet()
    jobs = [
        (f"{policy}, {size:,} trials", {target.name: await new_job(target, policy, size) for target in targets})
        for policy, size in product(policies, sizes)
    ]
    for number in range(rounds):
        for subject, job_ids in jobs:
            for target in in_turns(targets, number):
                sample = await time_runs(target, [job_ids[target.name]] * min(runs, MAX_RUNS))
                measured[subject][target.name].append(note(subject, target, sample))
    return measured


async def measure_jobs(targets: Sequence[Target], rounds: int, count: int, runs: int) -> Measured:
    """Register jobs, then measure runs of random ones among them."""
    measured: Measured = tables.nothing_yet()
    job_ids = [f"{new_id()}-{number}" for number in range(count)]
    for target in targets:
        record = Record()
        async with trainers(target.url, REGISTERING, record) as crew:
            left = iter(job_ids)

            async def register(trainer: Trainer, left: Iterator[str] = left) -> None:
                for job_id in left:
                    await trainer.register(job_id)

            sample = await measure(target, record, asyncio.gather(*map(register, crew)))
            note(f"{count:,} registrations", target, sample)
    for number in range(rounds):
        chosen = random.Random(number).choices(job_ids, k=runs)
        for target in in_turns(targets, number):
            subject = f"one of {count:,} jobs"
            measured[subject][target.name].append(note(subject, target, await time_runs(target, chosen)))
    return measured


async def measure_servers(targets: Sequence[Target], arguments: argparse.Namespace) -> list[str]:
    """Measure the parts that were asked for. Returns their tables."""
    for target in targets:  # each worker imports its modules and connects, which is not measured
        await put_load(target, max(arguments.clients), arguments.runs, one_job=False)
    written = []
    if "load" in arguments.measure:
        measured = await measure_load(targets, arguments.rounds, arguments.clients, arguments.runs)
        written.append(tables.of_load(measured))
    calls = tables.nothing_yet()
    if "growth" in arguments.measure:
        calls |= await measure_growth(targets, arguments.rounds, arguments.policies, arguments.sizes, arguments.runs)
    if "jobs" in arguments.measure:
        calls |= await measure_jobs(targets, arguments.rounds, arguments.jobs, arguments.runs)
    return written + ([tables.of_calls(calls)] if calls else [])


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--measure", nargs="+", choices=PARTS, default=PARTS, help="default: all")
    database = parser.add_mutually_exclusive_group()
    database.add_argument("--serve", action="store_true", help="the embedded server: one worker process, on SQLite")
    database.add_argument("--database-url", help="an empty database, instead of a MariaDB of its own")
    parser.add_argument("--against", metavar="URL", help="another server, which runs already")
    parser.add_argument("--server-pid", type=int, action="append", default=[], help="a process of that server")
    parser.add_argument(
        "--database-pid", type=int, action="append", default=[], help="a process of a database that runs already"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--runs", type=int, default=128, help="of all clients together, in a round")
    parser.add_argument("--policies", nargs="+", choices=POLICIES, default=POLICIES, help="of the grown jobs")
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 1000, 10_000], help="trials of the grown jobs")
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables to this file too")
    arguments = parser.parse_args()
    if not (arguments.serve or arguments.database_url or shutil.which("mariadbd")):
        parser.error(
            "mariadbd is not installed; install Debian's package mariadb-server, or name --serve or --database-url"
        )
    return arguments


def conditions(server: Server, rounds: int) -> str:
    """Say what was measured, and where."""
    with connected(server.database_url) as connection:
        version = ".".join(map(str, connection.dialect.server_version_info or ()))
        database = f"{connection.dialect.name} {version}"
    kind = f"{server.workers} worker process" + ("es" if server.workers > 1 else "")
    machine = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"
    return (
        f"{datetime.date.today()}, {machine}: {kind}, {database}. Times in ms, processor times (CPU) in ms per call. "
        f"Median (lowest–highest) of {rounds} rounds; p50, p95, p99 of all rounds together.\n"
    )


def own_mariadb(stack: contextlib.ExitStack, folder: Path) -> tuple[str, int]:
    """Start a MariaDB with durable commits, which are its default. Returns a database's URL and the process id."""
    mariadb = start_mariadb(folder, "--innodb-flush-log-at-trx-commit=1")
    stack.callback(mariadb.stop)
    return mariadb.empty_database(), mariadb.pid


def main() -> None:
    """Measure and print."""
    arguments = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # so that what was started ends too
    written = []
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        sqlite, mysql, database_pids = f"sqlite:///{folder}/bso.db", arguments.database_url, arguments.database_pid
        if mysql is None and shutil.which("mariadbd"):
            mysql, pid = own_mariadb(stack, folder)
            database_pids = [*database_pids, pid]
        urls = [url for url in (sqlite, mysql) if url]
        for url in urls:
            migrate(url)
        if "statements" in arguments.measure:
            numbers = {
                f"{policy}, {url.split(':')[0]}": statements.count(url, new_id(), policy)
                for policy in POLICIES
                for url in urls
            }
            written.append(tables.of_statements(numbers))
        if set(arguments.measure) - {"statements"}:
            server = stack.enter_context(
                Server(sqlite, folder, cold=True) if arguments.serve else ImageServer(mysql, folder)
            )
            assert server.process is not None
            targets = [Target("this", server.url, [server.process.pid], [] if arguments.serve else database_pids)]
            if arguments.against:
                targets.append(Target("other", arguments.against, arguments.server_pid, database_pids))
            written = [
                conditions(server, arguments.rounds),
                *asyncio.run(measure_servers(targets, arguments)),
                *written,
            ]
    print("\n".join(written))
    if arguments.markdown:
        arguments.markdown.write_text("\n".join(written))


if __name__ == "__main__":
    main()
