"""The demo: its output agrees with its database, and the next demo continues the job."""

import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections import defaultdict
from contextlib import closing, suppress
from pathlib import Path
from statistics import fmean
from urllib.parse import parse_qs, urlsplit

import pytest
import requests

from lightning_bso.quantities import count
from tests import warm
from tests.servers import ROOT, environment
from tests.warm import EXAMPLES

ETA, DEFAULT = 0.5, 128
TIMEOUT_S = 240


def demo(database: Path, recurrences: int, *, cold: bool) -> str:
    """Run the demo on a database, and return its output."""
    command = [str(EXAMPLES / "demo.py"), f"--recurrences={recurrences}", f"--database={database}"]
    folder, variables = database.parent, environment(OMP_NUM_THREADS="1")
    with (folder / "stdout.txt").open("w+") as stdout, (folder / "stderr.txt").open("w+") as stderr:
        if cold:
            command.insert(0, sys.executable)
            run = subprocess.run(
                command, cwd=folder, env=variables, stdout=stdout, stderr=stderr, check=False, timeout=TIMEOUT_S
            )
            status = run.returncode
        else:
            process = warm.start(command, cwd=folder, env=variables, stdout=stdout, stderr=stderr)
            try:
                status = process.wait(TIMEOUT_S)
            finally:
                process.send_signal(signal.SIGKILL)
    printed = (folder / "stdout.txt").read_text()
    assert status == 0, printed + (folder / "stderr.txt").read_text()
    return printed


class Recorded:
    """The content of a demo's database, read without the project's code."""

    def __init__(self, database: Path) -> None:
        with closing(sqlite3.connect(database)) as connection:
            ((self.job_id, self.max_power),) = connection.execute(
                "SELECT job_id, json_extract(spec, '$.max_power') FROM jobs"
            )
            rows = connection.execute(
                "SELECT batch_size, converged, energy_j, time_s, status FROM trials ORDER BY number"
            ).fetchall()
        self.statuses = [row[4] for row in rows]
        self.costs = [ETA * energy + (1 - ETA) * self.max_power * time for _, _, energy, time, _ in rows]
        self.converged = sum(bool(row[1]) for row in rows)
        by_size: dict[int, list[float]] = defaultdict(list)
        for (size, converged, *_), cost in zip(rows, self.costs, strict=True):
            if converged:
                by_size[size].append(cost)
        self.mean_costs = {size: fmean(costs) for size, costs in by_size.items()}


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The database of the demos in this module."""
    return tmp_path_factory.mktemp("demo") / "demo.db"


@pytest.fixture(scope="module")
def first(database: Path) -> tuple[str, Recorded]:
    """The output and the database of the first demo."""
    return demo(database, 2, cold=True), Recorded(database)


@pytest.fixture(scope="module")
def second(first: tuple[str, Recorded], database: Path) -> tuple[str, Recorded]:
    """The output and the database of the second demo, on the same database."""
    return demo(database, 1, cold=False), Recorded(database)


@pytest.mark.parametrize("name", ["first", "second"])
def test_the_summary_is_what_the_database_says(name: str, request: pytest.FixtureRequest) -> None:
    printed, recorded = request.getfixturevalue(name)
    cheapest = min(recorded.mean_costs, key=recorded.mean_costs.__getitem__)
    cost = recorded.mean_costs[cheapest]
    assert f"Cheapest batch size: {cheapest}, {cost:.2f} J per run on average." in printed
    default = recorded.mean_costs.get(DEFAULT)
    if default is None:
        assert f"The default, {DEFAULT}, has not converged." in printed
    elif cheapest == DEFAULT:
        assert "so far no other batch size is cheaper" in printed
    else:
        saved = default - cost
        comparison = f"Compared with the default ({DEFAULT}, {default:.2f} J) it saves {saved:.2f} J"
        assert f"{comparison}, {saved / default:.1%}" in printed


def test_the_cost_of_the_session_is_what_its_launches_have_cost(first: tuple[str, Recorded]) -> None:
    printed, recorded = first
    launches = len(recorded.costs)
    assert f"The {launches} launches of this session cost {sum(recorded.costs):.2f} J in total" in printed


def test_every_launch_has_a_line_and_every_recurrence_converges(first: tuple[str, Recorded]) -> None:
    printed, recorded = first
    lines = re.findall(r"^ +\d+ +(\d+)  (?:Pruning|MAB) .* estimated +(\d+\.\d\d)  ", printed, flags=re.MULTILINE)
    assert [(int(trial), cost) for trial, cost in lines] == [
        (number, f"{cost:.2f}") for number, cost in enumerate(recorded.costs, start=1)
    ]
    assert recorded.converged == 2
    assert set(recorded.statuses) == {"Succeeded"}


def test_the_next_demo_goes_on_with_the_same_job(first: tuple[str, Recorded], second: tuple[str, Recorded]) -> None:
    printed, recorded = second
    before = first[1]
    assert f"Job {before.job_id}: continues after {len(before.costs)} trials." in printed
    assert recorded.job_id == before.job_id
    assert recorded.costs[: len(before.costs)] == before.costs
    assert recorded.converged == 3
    new = recorded.costs[len(before.costs) :]
    assert f"The {count(len(new), 'launch', 'launches')} of this session cost {sum(new):.2f} J in total" in printed


def test_a_line_of_bars_shows_what_each_recurrence_has_cost(first: tuple[str, Recorded]) -> None:
    printed, _ = first
    spent: dict[str, float] = defaultdict(float)
    for run, cost in re.findall(r"^ +(\d+) +\d+  (?:Pruning|MAB) .* estimated +(\d+\.\d\d)  ", printed, re.MULTILINE):
        spent[run] += float(cost)
    ((low, high, bars),) = re.findall(r"^Cost per recurrence, (\S+) to (\S+) J:  (\S+)$", printed, re.MULTILINE)
    assert (float(low), float(high)) == pytest.approx((min(spent.values()), max(spent.values())), abs=0.05)
    assert bars == ("▁█" if spent["1"] < spent["2"] else "█▁")


def test_it_ends_with_the_address_of_the_jobs_page(first: tuple[str, Recorded], database: Path) -> None:
    printed, recorded = first
    assert f"serve --database-url sqlite:///{database}" in printed
    address = urlsplit(printed.split()[-1])
    assert (address.netloc, address.path) == ("127.0.0.1:8000", "/admin/job/")
    assert parse_qs(address.query) == {"job": [recorded.job_id]}


def test_asked_to_serve_it_shows_the_page_until_ctrl_c(second: tuple[str, Recorded], database: Path) -> None:
    command = [str(EXAMPLES / "demo.py"), "--recurrences=1", f"--database={database}", "--serve"]
    variables = environment(OMP_NUM_THREADS="1")
    with (database.parent / "serve.txt").open("w") as errors:
        process = warm.start(command, cwd=database.parent, env=variables, stdout=None, stderr=errors)
        try:
            assert process.stdout is not None
            last = next(line for line in process.stdout if "until Ctrl-C" in line)
            page = requests.get(last.split()[-1], timeout=TIMEOUT_S)
            assert page.status_code == 200
            assert second[1].job_id in page.text
            process.send_signal(signal.SIGINT)
            assert process.wait(TIMEOUT_S) == 0
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # the server too
    with pytest.raises(requests.ConnectionError):
        requests.get(last.split()[-1], timeout=TIMEOUT_S)


def test_make_asks_for_it() -> None:
    for options, asked in (([], False), (["SERVE=1"], True)):
        done = subprocess.run(
            ["make", "--dry-run", "demo", *options], cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert ("demo.py --serve" in done.stdout) == asked


def test_git_ignores_its_database_and_its_log() -> None:
    for name in ("demo.db", "demo.log"):
        subprocess.run(["git", "check-ignore", "--quiet", name], cwd=ROOT, check=True)
