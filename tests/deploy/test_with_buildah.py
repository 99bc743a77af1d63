"""The images, built for real, and their programs. `make test-deploy` runs these tests as root.

The programs have a container's files and user, and this machine's network. So the server listens on a loopback port.
"""

import os
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from packaging.utils import canonicalize_name

from lightning_bso import BatchSizeOptimizer, BsoClient, JobSpec
from tests.databases import MariaDB
from tests.deploy.container import DOCKER, Image, locked
from tests.deploy.images import Container, build
from tests.servers import ROOT, Server

USER = 10001
pytestmark = pytest.mark.timeout(1800)  # the first image starts with a download of Debian's packages


@pytest.fixture(scope="module")
def migration() -> Iterator[Container]:
    container = Container(build("migration"))
    yield container
    container.remove()


@pytest.fixture(scope="module")
def server() -> Iterator[Container]:
    container = Container(build("server"))
    yield container
    container.remove()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The folder of an SQLite file. The images' user may write there."""
    folder = tmp_path / "data"
    folder.mkdir()
    os.chown(folder, USER, USER)
    return folder


@pytest.fixture
def database_urls(mariadb: MariaDB) -> dict[str, str]:
    return {"sqlite": "sqlite:////data/bso.db", "mariadb": mariadb.empty_database()}


class ImageServer(Server):
    """The command of the server's image, on a free loopback port."""

    def __init__(self, container: Container, url: str, data: Path, *, read_only: bool) -> None:
        super().__init__(url, data.parent)
        self.port = 0  # the image's user is not the one whose socket would hold the port
        self.container = container
        self.data = data
        self.read_only = read_only

    def command(self) -> list[str]:
        """Return what runs the image's command, with another address."""
        other = {"0.0.0.0": "127.0.0.1", "8000": str(self.port)}
        command = [other.get(part, part) for part in Image.of("server").command]
        variables = {"ZEUS_BSO_DATABASE_URL": self.database_url, "PROMETHEUS_MULTIPROC_DIR": "/tmp"}
        run = self.container.read_only if self.read_only else self.container.command
        return run(command, self.data, variables)


def run(container: Container, command: list[str], data: Path, url: str) -> str:
    variables = {"ZEUS_BSO_DATABASE_URL": url}
    whole = container.command(command, data, variables)
    done = subprocess.run(whole, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def recur(url: str) -> None:
    """Train a job once with the client."""
    job = JobSpec(job_id_prefix="nightly", batch_sizes=[16, 32], default_batch_size=16, target_metric=0.9, max_epochs=3)
    with BatchSizeOptimizer(server_url=url, job=job) as bso:
        bso.get_batch_size()
        bso.on_train_begin()
        accuracies = iter([0.5, 0.95])
        while not bso.training_finished:
            bso.on_evaluate(next(accuracies))
    assert bso.result.converged


@pytest.mark.parametrize(("system", "read_only"), [("sqlite", True), ("mariadb", False)])
def test_the_images_migrate_serve_a_recurrence_and_repeat_its_decisions(
    migration: Container,
    server: Container,
    database_urls: dict[str, str],
    data: Path,
    system: str,
    read_only: bool,
) -> None:
    url = database_urls[system]
    migrated = run(migration, Image.of("migration").command, data, url)
    assert migrated.startswith("The schema version is ")
    run(migration, Image.of("migration").healthcheck, data, url)
    with ImageServer(server, url, data, read_only=read_only) as serving:
        recur(serving.url)
        (job,) = BsoClient(serving.url).list_jobs().jobs
        trials = BsoClient(serving.url).list_trials(job.job_id).trials
        assert [trial.converged for trial in trials] == [True]
        metrics = requests.get(f"{serving.url}/metrics", timeout=30).text
        stopped = serving.stop()
    assert stopped == 0 or not read_only  # buildah passes SIGTERM on to nobody
    assert 'zeus_bso_request_seconds_count{method="POST",path="/jobs"' in metrics
    assert run(server, ["lightning-bso", "server", "replay", job.job_id], data, url).startswith("All decisions")


def test_the_programs_run_as_a_user_who_can_change_none_of_the_image_s_files(server: Container, data: Path) -> None:
    find = (
        "id -u; find / -xdev -not -path '/proc/*' -not -path '/dev/*' -writable -not -type l -print 2>/dev/null; true"
    )
    user, *writable = run(server, ["sh", "-c", find], data, "sqlite:////data/bso.db").splitlines()
    assert user == str(USER)
    folders = ("/data", "/tmp", "/var/tmp", "/run/lock")
    assert [path for path in writable if not path.startswith(folders)] == []


def test_the_image_holds_no_compiler(server: Container, data: Path) -> None:
    look = "for name in cc gcc g++ make ld rustc cargo; do command -v $name; done; true"
    assert run(server, ["sh", "-c", look], data, "sqlite:////data/bso.db") == ""


def test_the_image_has_the_locked_versions_and_the_project_s(server: Container, data: Path) -> None:
    code = "from importlib.metadata import distributions as d; print(*sorted(f'{p.name}=={p.version}' for p in d()))"
    installed = run(server, ["/opt/bso/bin/python", "-c", code], data, "sqlite:////data/bso.db").split()
    names = {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in installed)}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert names == locked(DOCKER / "requirements.txt") | {project["name"]: project["version"]}


def test_the_sizes_of_the_images_are_printed(
    migration: Container, server: Container, capsys: pytest.CaptureFixture[str]
) -> None:
    assert server.size.endswith("MB")
    with capsys.disabled():
        print(f"\nlightning-bso-migration {migration.size}, lightning-bso-server {server.size}")
