"""A real server with many jobs, and a real browser that may contact only this server."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from filelock import FileLock
from flask import Flask
from playwright.sync_api import Browser, ConsoleMessage, Page, expect

from backend.app import create_app
from backend.config import Settings
from backend.database.extensions import db
from backend.usecases import tokens, users
from backend.usecases.audit import COMMAND_LINE
from backend.usecases.tokens import Scope
from backend.usecases.users import Role
from benchmarks.filling import play_through
from tests import logs
from tests.browser.steps import JOB, PASSWORD
from tests.calls import Calls
from tests.databases import in_application
from tests.servers import Server

SMALL_SIZE, FULL_SIZE = (10, 50), (200, 25)
"""Simulated jobs, and trials of each job. Full size has many jobs, and small size longer ones."""
FULL_SIZE_TIMEOUT_S = 1800
"""Timeout of a test. The first tests wait until all jobs are simulated."""
ERROR_STATUS = re.compile(r"the server responded with a status of (\d+)")
expect.set_options(timeout=60_000)  # plotly's script loads slowly while other tests use the processors


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("full_size"):
        for item in items:
            if "filled_sqlite_file" in getattr(item, "fixturenames", ()):
                item.add_marker(pytest.mark.timeout(FULL_SIZE_TIMEOUT_S))


@pytest.fixture(scope="session")
def filled_sqlite_file(
    request: pytest.FixtureRequest,
    migrated_sqlite_file: Path,
    tmp_path_factory: pytest.TempPathFactory,
    worker_id: str,
) -> Path:
    """An SQLite file with simulated jobs. Copy it before use.

    The first of several test processes creates the file. The others wait for it.
    """
    own = tmp_path_factory.getbasetemp()
    shared = (own if worker_id == "master" else own.parent) / "filled.db"
    with FileLock(f"{shared}.lock"):
        if not shared.exists():
            new_file = shutil.copy(migrated_sqlite_file, own / "incomplete.db")
            with in_application(f"sqlite:///{new_file}"):
                play_through(*(FULL_SIZE if request.config.getoption("full_size") else SMALL_SIZE))
            new_file.rename(shared)  # only when it is complete
    return shared


@pytest.fixture(scope="module")
def site(filled_sqlite_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with the simulated jobs, one more job of each policy, and a user of each role.

    Each of the added jobs has a running trial. A user's name is the role.
    """
    folder = tmp_path_factory.mktemp("site")
    url = f"sqlite:///{shutil.copy(filled_sqlite_file, folder / 'bso.db')}"
    with logs.restored():
        fill(create_app(Settings(database_url=url, log_level="CRITICAL")))
    with Server(url, folder) as server:
        yield server


def fill(app: Flask) -> None:
    """Create the two jobs and the users."""
    calls = Calls.through_test_client(app.test_client())
    for job_id, policy in ((JOB, "gp-ucb"), ("speech", "zeus")):
        calls.register(
            job_id=job_id,
            job_id_prefix=job_id,
            policy=policy,
            eta_knob=0.5,
            beta_knob=None,
            batch_sizes=[8, 16, 32, 64],
        )
        for number in range(12):
            trial = calls.trial(job_id)
            size = trial["batch_size"]
            if size < 64:
                totals = {"time": 160.0 / size, "energy": 400.0 + 30 * size + number, "metric": 1.0}
                calls.must(calls.report(trial, current_epoch=5, **totals))
            else:
                calls.diverge(trial)
        calls.report(calls.trial(job_id), time=1.0, energy=10.0)
    with app.app_context():
        for role in Role:
            users.create(role, PASSWORD, role, COMMAND_LINE)
        tokens.create("old", Scope.READ)
        db.engine.dispose()


@pytest.fixture
def admin_calls(site: Server, request: pytest.FixtureRequest) -> Calls:
    """Calls to the server's database with an administrator's token, which has the name of the test."""
    app = create_app(Settings(database_url=site.database_url, log_level="CRITICAL"))
    client = app.test_client()
    with app.app_context():
        client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {tokens.create(request.node.name, Scope.ADMIN)}"
        db.engine.dispose()
    return Calls.through_test_client(client)


@pytest.fixture
def browser_errors() -> list[str]:
    """Errors of the browser in this test. An error that is still in the list at the end fails the test."""
    return []


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run every test in light mode, and in dark mode too if colours matter to it or the run is of full size."""
    if "page" in metafunc.fixturenames:
        dark = metafunc.config.getoption("full_size") or metafunc.definition.get_closest_marker("in_both_modes")
        metafunc.parametrize("page", ["light", "dark"] if dark else ["light"], indirect=True)


@pytest.fixture
def page(request: pytest.FixtureRequest, browser: Browser, site: Server, browser_errors: list[str]) -> Iterator[Page]:
    """A browser page. Afterwards, check that every request went to the server and that no unexpected error occurred."""
    foreign_requests: list[str] = []
    expected_statuses = {str(status) for mark in request.node.iter_markers("expects_status") for status in mark.args}
    context = browser.new_context(
        base_url=site.url, color_scheme=request.param, viewport={"width": 1280, "height": 900}
    )
    opened = context.new_page()
    own = urlsplit(site.url).netloc
    opened.on(
        "request",
        lambda request: foreign_requests.append(request.url) if urlsplit(request.url).netloc not in (own, "") else None,
    )

    def check_message(message: ConsoleMessage) -> None:
        status = ERROR_STATUS.search(message.text)
        if message.type == "error" and not (status and status[1] in expected_statuses):
            browser_errors.append(message.text)

    opened.on("console", check_message)
    opened.on("pageerror", lambda error: browser_errors.append(str(error)))
    yield opened
    context.close()
    assert foreign_requests == []
    assert browser_errors == []
