"""What the containers run, run as real processes on MariaDB, with the environment that the compose file gives them.

Only what a container's network and file system would bring is replaced: the database's address and name, the address
to listen on, and the folder of the metrics.
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

from tests.databases import STARTUP_S, MariaDB, dump, free_port
from tests.deploy.container import Image, example, services
from tests.servers import Server, backend, environment

PASSWORD = """p@ss: w/o'r"d $HOME $(id) `id` %41 #{}*;&|\\ ~!"""
PORT = 8000
"""The server's in its container."""

Services = dict[str, Any]


@pytest.fixture
def url(mariadb: MariaDB) -> str:
    """An empty database, as root sees it."""
    return mariadb.empty_database()


@pytest.fixture
def made(mariadb: MariaDB, url: str) -> Services:
    """The compose file's services after an operator has set a password, on the tests' MariaDB."""
    made = services(example(ZEUS_BSO_DB_PASSWORD=PASSWORD))
    database, name = made["database"]["environment"], make_url(url).database
    for service in ("migration", "server"):
        variables = made[service]["environment"]
        meant = make_url(variables["ZEUS_BSO_DATABASE_URL"])
        assert (meant.host, meant.port, meant.database) == ("database", 3306, database["MYSQL_DATABASE"])
        here = meant.set(host="127.0.0.1", port=mariadb.port, database=name)
        variables["ZEUS_BSO_DATABASE_URL"] = here.render_as_string(hide_password=False)
    user = f"'{database['MYSQL_USER']}'@'127.0.0.1'"
    mariadb.execute(
        f"CREATE OR REPLACE USER {user} IDENTIFIED BY '{escape_string(database['MYSQL_PASSWORD'])}'",
        f"GRANT ALL ON {name}.* TO {user}",
    )
    return made


def _here(**variables: str) -> dict[str, str]:
    """A container's variables, and this Python's programs as those that a container would find."""
    return variables | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def _run(command: Sequence[str], folder: Path, variables: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command,
        cwd=folder,
        env=environment(**_here(**variables)),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


class ContainerServer(Server):
    """The command of the server's image, on a free port of this machine alone."""

    def __init__(self, made: Services, folder: Path) -> None:
        self.image = Image.of("server")
        metrics = folder / "metrics"
        metrics.mkdir()
        given = self.image.environment | made["server"]["environment"]
        variables = {name: value.replace("/tmp/metrics", str(metrics)) for name, value in given.items()}
        assert variables["PROMETHEUS_MULTIPROC_DIR"] == str(metrics)
        super().__init__(variables["ZEUS_BSO_DATABASE_URL"], folder, **_here(**variables))

    def start(self) -> None:
        """Start it and wait until its image's healthcheck finds it healthy."""
        self.port = free_port()
        process = self._spawn(self._with_port(self.image.command, f"0.0.0.0:{PORT}"))
        deadline = time.monotonic() + STARTUP_S
        while self.healthcheck().returncode != 0:
            if process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise AssertionError(f"the server did not start: {self.said()}")

    def healthcheck(self) -> "subprocess.CompletedProcess[str]":
        """What the container engine runs now and then."""
        return _run(self._with_port(self.image.healthcheck, f"127.0.0.1:{PORT}"), self.folder, self.variables)

    def _with_port(self, command: Sequence[str], address: str) -> list[str]:
        assert sum(part.count(address) for part in command) == 1, command
        return [part.replace(address, f"127.0.0.1:{self.port}") for part in command]


def _migrate(made: Services, folder: Path) -> "subprocess.CompletedProcess[str]":
    return _run(Image.of("migration").command, folder, made["migration"]["environment"])


def test_what_compose_starts_migrates_serves_and_closes_with_the_first_token(made: Services, tmp_path: Path) -> None:
    migrated = _migrate(made, tmp_path)
    assert migrated.returncode == 0, migrated.stderr
    with ContainerServer(made, tmp_path) as server:
        assert server.calls("GET", "/readyz").status == 200
        assert server.calls.register().status == 201
        assert server.calls.trial()["batch_size"] == 16
        variables = made["server"]["environment"]
        created = backend("token", "create", "--label", "trainers", "--scope", "run", folder=tmp_path, **variables)
        assert created.returncode == 0, created.stderr
        assert server.calls.register(job_id="other").status == 401
        assert server.calls("GET", "/readyz").status == 200
        jobs = requests.get(f"{server.url}/jobs", auth=("bso", created.stdout.strip()), timeout=30)
        assert [job["job_id"] for job in jobs.json()["jobs"]] == ["train"]
        said = server.said()
        assert server.stop() == 0, said
    assert PASSWORD not in migrated.stdout + migrated.stderr + said


def test_the_migrations_healthcheck_tells_whether_it_is_done_and_a_second_run_does_no_harm(
    made: Services, url: str, tmp_path: Path
) -> None:
    def healthy() -> bool:
        done = _run(Image.of("migration").healthcheck, tmp_path, made["migration"]["environment"])
        return done.returncode == 0

    assert not healthy()
    assert _migrate(made, tmp_path).returncode == 0
    assert healthy()
    before = dump(url)
    assert _migrate(made, tmp_path).returncode == 0
    assert dump(url) == before


def test_the_servers_healthcheck_notices_a_server_that_is_gone(made: Services, tmp_path: Path) -> None:
    assert _migrate(made, tmp_path).returncode == 0
    with ContainerServer(made, tmp_path) as server:
        server.stop()
        assert server.healthcheck().returncode != 0


def test_the_servers_command_ends_and_names_the_migration_if_that_has_not_run(made: Services, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="python -m backend db upgrade"):
        ContainerServer(made, tmp_path).start()


@pytest.mark.parametrize(("password", "healthy"), [(PASSWORD, True), ("another", False)])
def test_the_databases_healthcheck_logs_in_whatever_the_password(
    made: Services, mariadb: MariaDB, tmp_path: Path, password: str, healthy: bool
) -> None:
    address = "--host=127.0.0.1"
    test = made["database"]["healthcheck"]["test"]
    assert isinstance(test, str)  # compose has a shell run it
    assert address in test
    command = test.replace(address, f"{address} --port={mariadb.port}").replace("mysqladmin", "mariadb-admin")
    done = _run(["/bin/sh", "-c", command], tmp_path, made["database"]["environment"] | {"MYSQL_PASSWORD": password})
    assert (done.returncode == 0) == healthy, done.stderr
    assert healthy or "Access denied" in done.stderr
