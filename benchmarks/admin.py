"""How long the pages of the admin page and the calls for scripts take, on a database of many jobs.

    python -m benchmarks.admin [--jobs 200] [--trials 100] [--database-url mysql+pymysql://…] [--repeats 10]

The database is made by `benchmarks.filling`. A real server is then asked for one page after the other by a user who has
logged in, and for the calls by a script with a token. Prints the median and the longest time of each, in ms, and how
much was sent.
"""

import argparse
import contextlib
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlencode

import requests

from backend.app import create_app
from backend.config import load_settings
from backend.database.extensions import db
from backend.usecases import tokens, users
from backend.usecases.audit import COMMAND_LINE
from backend.usecases.tokens import Scope
from backend.usecases.users import Role
from backend.web.admin.tables import Table
from benchmarks.filling import Filled, play_through

ROOT = Path(__file__).parent.parent
MEMORY = Path("/dev/shm")
"""Where Linux has a file system that need not wait for any disk."""
PASSWORD = "a benchmark's own password"


def fill(url: str, jobs: int, trials: int) -> tuple[Filled, str]:
    """Make the jobs and who asks for them. Returns what was made, and a token."""
    with create_app(load_settings(database_url=url, log_level="WARNING")).app_context():
        filled = play_through(jobs, trials)
        users.create("benchmark", PASSWORD, Role.ADMIN, COMMAND_LINE)
        token = tokens.create("benchmark", Scope.READ)
        db.engine.dispose()
    return filled, token


@contextlib.contextmanager
def serving(url: str) -> Iterator[str]:
    """A server on a database; gives its address."""
    command = [sys.executable, "-m", "backend", "serve", "--port", "0", "--database-url", url]
    environment = os.environ | {"ZEUS_BSO_LOG_LEVEL": "WARNING"}
    server = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        yield server.stdout.readline().removeprefix("Listening on ").strip() if server.stdout else ""
    finally:
        server.terminate()
        server.wait()


def logged_in(address: str) -> requests.Session:
    """A session of the user that is called as the benchmark."""
    session, url = requests.Session(), f"{address}/admin/login/"
    form = _with_cookies(session, session.get(url)).text
    token = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', form)
    if token is None:
        raise RuntimeError(f"the login has no form: {form[:200]}")
    fields = {"csrf_token": token[1], "name": "benchmark", "password": PASSWORD}
    _with_cookies(session, session.post(url, data=fields, allow_redirects=False))
    return session


def _with_cookies(session: requests.Session, answer: requests.Response) -> requests.Response:
    """Send an answer's cookies from now on, without TLS too, as browsers do where the server is on their machine."""
    answer.raise_for_status()
    session.headers["Cookie"] = "; ".join(f"{one.name}={one.value}" for one in answer.cookies)
    return answer


def pages(filled: Filled) -> dict[str, str]:
    """The addresses of the admin page that are asked for, by name."""
    other, *_, job_id = filled.job_ids
    last_jobs, last_trials = ((total - 1) // Table.page_size for total in (len(filled.job_ids), filled.trials))

    def address(path: str, **query: object) -> str:
        return f"/admin/{path}?{urlencode(query)}"

    return {
        "overview": address(""),
        "jobs": address("jobs/"),
        "jobs, searched": address("jobs/", search=job_id),
        "jobs, last page, by id": address("jobs/", page=last_jobs, sort=0),
        "jobs, as CSV": address("jobs/export/csv/"),
        "trials": address("trials/"),
        "trials, by energy": address("trials/", sort=5, desc=1),
        "trials, searched": address("trials/", search="node-3"),
        "trials, last page": address("trials/", page=last_trials),
        "trials, as CSV": address("trials/export/csv/"),
        "audit": address("audit/"),
        "audit, searched": address("audit/", search=job_id),
        "job": address("job/", job=job_id),
        "job, plots": address("job/plots", job=job_id),
        "job, as CSV": address("job/export", job=job_id, format="csv"),
        "job, as JSON": address("job/export", job=job_id, format="json"),
        "trial": address("trial/", job=job_id, number=1),
        "compare": address("compare/", a=job_id, b=other),
        "tokens": address("tokens/"),
    }


def calls(job_id: str) -> dict[str, str]:
    """The addresses that scripts ask for, by name."""
    job = f"/jobs/{quote(job_id, safe='')}"
    return {
        "GET /jobs": "/jobs",
        "GET /jobs, 1000 of them": "/jobs?limit=1000",
        "GET /jobs, one found": f"/jobs?contains={quote(job_id)}",
        "GET /jobs/ID": job,
        "GET /jobs/ID/trials": f"{job}/trials",
        "GET /jobs/ID/belief": f"{job}/belief",
        "GET /jobs/ID/savings": f"{job}/savings",
    }


def measure(session: requests.Session, url: str, repeats: int) -> tuple[list[float], int]:
    """Milliseconds of each time, and the bytes of the answer."""
    taken, size = [], 0
    for _ in range(repeats):
        began = time.perf_counter()
        answer = session.get(url, allow_redirects=False)
        taken.append((time.perf_counter() - began) * 1e3)
        if answer.status_code != 200:
            raise RuntimeError(f"{url}: {answer.status_code} {answer.text[:300]}")
        size = len(answer.content)
    return taken, size


def main() -> None:
    """Fill, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--database-url", help="an empty database; else an SQLite file, in memory where that can be")
    parser.add_argument("--jobs", type=int, default=200, help="at least 2")
    parser.add_argument("--trials", type=int, default=100, help="of each job, on average")
    parser.add_argument("--repeats", type=int, default=10)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        url = arguments.database_url or f"sqlite:///{folder}/benchmark.db"
        began = time.perf_counter()
        filled, token = fill(url, arguments.jobs, arguments.trials)
        took_s = time.perf_counter() - began
        print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {url.split(':')[0]}")
        jobs = f"{len(filled.job_ids)} jobs, {filled.stuck} of them stuck"
        print(f"{jobs}, with {filled.trials} trials, made in {took_s:.0f} s")
        with serving(url) as address:
            user, script = logged_in(address), requests.Session()
            script.auth = ("", token)
            print(f"{'page or call':24} median   most    KiB")
            for session, addresses in ((user, pages(filled)), (script, calls(filled.job_ids[-1]))):
                for name, path in addresses.items():
                    taken, size = measure(session, address + path, arguments.repeats)
                    row = f"{name:24} {statistics.median(taken):6.0f} {max(taken):6.0f} {size / 1024:6.0f}"
                    print(row, flush=True)


if __name__ == "__main__":
    main()
