"""Measure the pages of the admin page and the API calls of scripts, on a database with many jobs.

    python -m benchmarks.admin [--jobs 200] [--trials 100] [--database-url mysql+pymysql://…] [--repeats 10]

`benchmarks.filling` fills the database. Then a logged-in user requests one page after the other from a real server (the
login page without a login), and a script with a token makes the API calls. The output has the median and the longest
time of each in ms, and the size of the answer. Parquet files are measured if pyarrow is installed.
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
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote, urlencode

import requests

from backend.app import create_app
from backend.config import load_settings
from backend.database.extensions import db
from backend.usecases import lists, tokens, users
from backend.usecases.audit import COMMAND_LINE
from backend.usecases.tokens import Scope
from backend.usecases.users import Role
from benchmarks.filling import Filled, play_through

ROOT = Path(__file__).parent.parent
MEMORY = Path("/dev/shm")
"""A file system in memory, on Linux. It does not wait for a disk."""
PASSWORD = "a benchmark's own password"
FORMATS = ("csv", "parquet") if find_spec("pyarrow") else ("csv",)
FILES = [f"{table}.{kind}" for kind in FORMATS for table in ("trials", "reports")]


def fill(url: str, jobs: int, trials: int) -> tuple[Filled, str]:
    """Create the jobs, a user and a token. Returns the jobs and the token."""
    with create_app(load_settings(database_url=url, log_level="WARNING")).app_context():
        filled = play_through(jobs, trials)
        users.create("benchmark", PASSWORD, Role.ADMIN, COMMAND_LINE)
        token = tokens.create("benchmark", Scope.READ)
        db.engine.dispose()
    return filled, token


@contextlib.contextmanager
def serving(url: str) -> Iterator[str]:
    """Run a server on a database. Yields its address."""
    command = [sys.executable, "-m", "backend", "serve", "--port", "0", "--database-url", url]
    environment = os.environ | {"ZEUS_BSO_LOG_LEVEL": "WARNING"}
    server = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        yield server.stdout.readline().removeprefix("Listening on ").strip() if server.stdout else ""
    finally:
        server.terminate()
        server.wait()


def logged_in(address: str) -> requests.Session:
    """Log in as the benchmark's user. Returns the session."""
    session, url = requests.Session(), f"{address}/admin/login/"
    form = _with_cookies(session, session.get(url)).text
    token = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', form)
    if token is None:
        raise RuntimeError(f"the login has no form: {form[:200]}")
    fields = {"csrf_token": token[1], "name": "benchmark", "password": PASSWORD}
    _with_cookies(session, session.post(url, data=fields, allow_redirects=False))
    return session


def _with_cookies(session: requests.Session, answer: requests.Response) -> requests.Response:
    """Send the answer's cookies from now on. Like a browser on the server's machine, send them without TLS too."""
    answer.raise_for_status()
    session.headers["Cookie"] = "; ".join(f"{cookie.name}={cookie.value}" for cookie in answer.cookies)
    return answer


def pages(filled: Filled) -> dict[str, str]:
    """Return the addresses of the measured pages, by name."""
    other, *_, job_id = filled.job_ids
    chosen = filled.job_ids[-3:]
    last_jobs, last_trials = ((total - 1) // lists.PAGE_SIZE for total in (len(filled.job_ids), filled.trials))

    def address(path: str, **query: object) -> str:
        return f"/admin/{path}?{urlencode(query, doseq=True)}"

    return {
        "overview": address(""),
        "revision of all jobs": address("revision"),
        "savings": address("savings/"),
        "savings, all time": address("savings/", range="all"),
        "savings, plots": address("savings/plots"),
        "jobs": address("jobs/"),
        "jobs, searched": address("jobs/", search=job_id),
        "jobs, last page, by id": address("jobs/", page=last_jobs, sort="job"),
        "jobs, by last launch": address("jobs/", sort="launched", desc=1),
        "jobs, as CSV": address("jobs/export/csv/"),
        "trials": address("trials/"),
        "trials, by energy": address("trials/", sort="energy", desc=1),
        "trials, by cost": address("trials/", sort="cost", desc=1),
        "trials, by job": address("trials/", sort="job"),
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
        "compare": address("compare/", job=[job_id, other]),
        "compare, on other GPUs": address("compare/", like=job_id),
        "compare, searched": address("compare/", search=job_id),
        "new job like another": address("job/derive", job=job_id),
        **{f"3 jobs, {file}": address("export/", file=file, job=chosen) for file in FILES},
        "tokens": address("tokens/"),
        "users": address("users/"),
        "account": address("account/"),
    }


def calls(job_id: str) -> dict[str, str]:
    """Return the addresses of the API calls, by name."""
    job = f"/jobs/{quote(job_id, safe='')}"
    return {
        "GET /jobs": "/jobs",
        "GET /jobs, 1000 of them": "/jobs?limit=1000",
        "GET /jobs, one found": f"/jobs?contains={quote(job_id)}",
        "GET /jobs/ID": job,
        "GET /jobs/ID/trials": f"{job}/trials",
        "GET /jobs/ID/belief": f"{job}/belief",
        "GET /jobs/ID/savings": f"{job}/savings",
        "GET /savings": "/savings",
        "GET /savings, by job": "/savings?group_by=job",
        "GET /metrics": "/metrics",
    }


def measure(session: requests.Session, url: str, repeats: int) -> tuple[list[float], int]:
    """Request an address several times. Returns the milliseconds of each request, and the bytes of the answer."""
    durations_ms, size = [], 0
    for _ in range(repeats):
        start = time.perf_counter()
        answer = session.get(url, allow_redirects=False)
        durations_ms.append((time.perf_counter() - start) * 1e3)
        if answer.status_code != 200:
            raise RuntimeError(f"{url}: {answer.status_code} {answer.text[:300]}")
        size = len(answer.content)
    return durations_ms, size


def main() -> None:
    """Fill, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--database-url", help="an empty database; default: an SQLite file, in memory if possible")
    parser.add_argument("--jobs", type=int, default=200, help="at least 2")
    parser.add_argument("--trials", type=int, default=100, help="trials per job, on average")
    parser.add_argument("--repeats", type=int, default=10)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        url = arguments.database_url or f"sqlite:///{folder}/benchmark.db"
        start = time.perf_counter()
        filled, token = fill(url, arguments.jobs, arguments.trials)
        filled_s = time.perf_counter() - start
        print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {url.split(':')[0]}")
        jobs = f"{len(filled.job_ids)} jobs, {filled.stuck} of them stuck"
        print(f"{jobs}, with {filled.trials} trials, created in {filled_s:.0f} s")
        with serving(url) as address:
            stranger, user, script = requests.Session(), logged_in(address), requests.Session()
            script.auth = ("", token)
            print(f"{'page or call':24} median longest    KiB")
            measured = (
                (stranger, {"log in": "/admin/login/"}),
                (user, pages(filled)),
                (script, calls(filled.job_ids[-1])),
            )
            for session, addresses in measured:
                for name, path in addresses.items():
                    durations_ms, size = measure(session, address + path, arguments.repeats)
                    median, longest = statistics.median(durations_ms), max(durations_ms)
                    print(f"{name:24} {median:6.0f} {longest:7.0f} {size / 1024:6.0f}", flush=True)


if __name__ == "__main__":
    main()
