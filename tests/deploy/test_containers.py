"""The commands of the containers, run as real processes on MariaDB with the environment from the compose file.

The tests replace only the parts that depend on a container's network and file system: the database's address and name,
the address to listen on, and the folder of the metrics.
"""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import requests
from pymysql.converters import escape_string
from sqlalchemy import make_url

from tests.databases import MariaDB, dump
from tests.deploy.container import Image, example, services
from tests.servers import Server, backend, environment

PASSWORD = """p@ss: w/o'r"d $HOME $(id) `id` %41 #{}*;&|\\ ~!"""
PORT = 8000
"""Port of the server in its container."""

CLOSED_WITHIN_S = 30
"""A worker of the server notices the first token within `ZEUS_BSO_AUTH_CACHE_S`, which is 5 s."""

Services = dict[str, Any]


@pytest.fixture
def url(mariadb: MariaDB) -> str:
    """The URL of an empty database, with the user root."""
    return mariadb.empty_database()


@pytest.fixture
def compose(mariadb: MariaDB, url: str) -> Services:
    """The compose file's services with a password set, on the tests' MariaDB."""
    compose = services(example(ZEUS_BSO_DB_PASSWORD=PASSWORD))
    database, name = compose["database"]["environment"], make_url(url).database
    for service in ("migration", "server"):
        variables = compose[service]["environment"]
        original = make_url(variables["ZEUS_BSO_DATABASE_URL"])
        assert (original.host, original.port, original.database) == ("database", 3306, database["MYSQL_DATABASE"])
        local = original.set(host="127.0.0.1", port=mariadb.port, database=name)
        variables["ZEUS_BSO_DATABASE_URL"] = local.render_as_string(hide_password=False)
    user = f"'{database['MYSQL_USER']}'@'127.0.0.1'"
    mariadb.execute(
        f"DROP USER IF EXISTS {user}",
        f"CREATE USER {user} IDENTIFIED BY '{escape_string(database['MYSQL_PASSWORD'])}'",
        f"GRANT ALL ON {name}.* TO {user}",
    )
    return compose


def _with_path(**variables: str) -> dict[str, str]:
    """Return a container's variables, with a PATH that starts with this Python's programs."""
    return variables | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def _run(command: Sequence[str], folder: Path, variables: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command,
        cwd=folder,
        env=environment(**_with_path(**variables)),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


class ContainerServer(Server):
    """The command of the server's image, on a free loopback port."""

    def __init__(self, compose: Services, folder: Path) -> None:
        self.image = Image.of("server")
        metrics = folder / "metrics"
        metrics.mkdir()
        variables = self.image.environment | compose["server"]["environment"]
        assert variables["PROMETHEUS_MULTIPROC_DIR"] == "/tmp"
        variables["PROMETHEUS_MULTIPROC_DIR"] = str(metrics)
        super().__init__(variables["ZEUS_BSO_DATABASE_URL"], folder, **_with_path(**variables))

    def command(self) -> list[str]:
        """Return the image's command, with another address."""
        return self._at(self.image.command, {"0.0.0.0": "127.0.0.1", str(PORT): str(self.port)})

    def start(self) -> None:
        """Start the server. The image's healthcheck succeeds then."""
        super().start()
        assert self.healthcheck().returncode == 0

    def healthcheck(self) -> "subprocess.CompletedProcess[str]":
        """Run the image's healthcheck."""
        command = self._at(self.image.healthcheck, {f"127.0.0.1:{PORT}": f"127.0.0.1:{self.port}"})
        return _run(command, self.folder, self.variables)

    def _at(self, command: Sequence[str], replacements: dict[str, str]) -> list[str]:
        """Return a command with other addresses. Each must be in it once."""
        replaced = list(command)
        for old, new in replacements.items():
            assert sum(part.count(old) for part in replaced) == 1, command
            replaced = [part.replace(old, new) for part in replaced]
        return replaced


def _migrate(compose: Services, folder: Path) -> "subprocess.CompletedProcess[str]":
    return _run(Image.of("migration").command, folder, compose["migration"]["environment"])


def test_what_compose_starts_migrates_serves_and_closes_with_the_first_token(compose: Services, tmp_path: Path) -> None:
    migrated = _migrate(compose, tmp_path)
    assert migrated.returncode == 0, migrated.stderr
    with ContainerServer(compose, tmp_path) as server:
        assert server.calls("GET", "/readyz").status == 200
        assert server.calls.register().status == 201
        assert server.calls.trial()["batch_size"] == 16
        variables = compose["server"]["environment"]
        created = backend("token", "create", "--label", "trainers", "--scope", "run", folder=tmp_path, **variables)
        assert created.returncode == 0, created.stderr
        deadline = time.monotonic() + CLOSED_WITHIN_S
        while server.calls("GET", "/jobs").status != 401:
            assert time.monotonic() < deadline, "the server remembers that there is no token"
        assert server.calls("GET", "/readyz").status == 200
        jobs = requests.get(f"{server.url}/jobs", auth=("bso", created.stdout.strip()), timeout=30)
        assert [job["job_id"] for job in jobs.json()["jobs"]] == ["train"]
        log = server.read_log()
        assert server.stop() == 0, log
    assert PASSWORD not in migrated.stdout + migrated.stderr + log


def test_the_migrations_healthcheck_shows_whether_it_is_done_and_a_second_run_does_no_harm(
    compose: Services, url: str, tmp_path: Path
) -> None:
    def healthy() -> bool:
        done = _run(Image.of("migration").healthcheck, tmp_path, compose["migration"]["environment"])
        return done.returncode == 0

    assert not healthy()
    assert _migrate(compose, tmp_path).returncode == 0
    assert healthy()
    before = dump(url)
    assert _migrate(compose, tmp_path).returncode == 0
    assert dump(url) == before


def test_the_servers_healthcheck_notices_a_server_that_is_gone(compose: Services, tmp_path: Path) -> None:
    assert _migrate(compose, tmp_path).returncode == 0
    with ContainerServer(compose, tmp_path) as server:
        server.stop()
        assert server.healthcheck().returncode != 0


def test_the_servers_command_ends_and_names_the_migration_if_that_has_not_run(
    compose: Services, tmp_path: Path
) -> None:
    with pytest.raises(AssertionError, match="lightning-bso server db upgrade"):
        ContainerServer(compose, tmp_path).start()


@pytest.mark.parametrize(("password", "healthy"), [(PASSWORD, True), ("another", False)])
def test_the_databases_healthcheck_logs_in_whatever_the_password(
    compose: Services, mariadb: MariaDB, tmp_path: Path, password: str, healthy: bool
) -> None:
    address = "--host=127.0.0.1"
    test = compose["database"]["healthcheck"]["test"]
    assert isinstance(test, str)  # compose runs a string in a shell
    assert address in test
    command = test.replace(address, f"{address} --port={mariadb.port}").replace("mysqladmin", "mariadb-admin")
    variables = compose["database"]["environment"] | {"MYSQL_PASSWORD": password}
    done = _run(["/bin/sh", "-c", command], tmp_path, variables)
    assert (done.returncode == 0) == healthy, done.stderr
    assert healthy or "Access denied" in done.stderr
