"""Debian's docker-compose 1.29 understands the compose files. `make test-deploy` runs these tests."""

import os
import subprocess
from pathlib import Path

import yaml

from tests.deploy.container import COMPOSE_FILE, DOCKER, example, services


def config(folder: Path, *files: Path) -> "subprocess.CompletedProcess[str]":
    """Resolve compose files with all profiles."""
    variables = folder / "variables"
    variables.write_text("".join(f"{name}={value}\n" for name, value in example().items()))
    named = [part for file in files for part in ("-f", str(file))]
    command = ["docker-compose", *named, "--env-file", str(variables), "--profile", "proxy", "--profile", "monitoring"]
    path = {"PATH": os.environ["PATH"]}
    return subprocess.run([*command, "config"], capture_output=True, text=True, env=path, check=False)


def test_docker_compose_resolves_the_file_to_the_services_that_the_other_tests_see(tmp_path: Path) -> None:
    done = config(tmp_path, COMPOSE_FILE)
    assert done.returncode == 0, done.stderr
    resolved = yaml.safe_load(done.stdout)["services"]
    expected = services(example())
    assert set(resolved) == set(expected)
    assert resolved["server"]["environment"].keys() == expected["server"]["environment"].keys()


def test_docker_compose_replaces_the_passwords_by_files(tmp_path: Path) -> None:
    done = config(tmp_path, COMPOSE_FILE, DOCKER / "docker-compose.secrets.yaml")
    assert done.returncode == 0, done.stderr
    resolved = yaml.safe_load(done.stdout)["services"]
    values = [value for service in resolved.values() for value in service.get("environment", {}).values()]
    assert not {"one", "two"} & set(values)
    assert resolved["database"]["environment"]["MYSQL_PASSWORD_FILE"] == "/run/secrets/ZEUS_BSO_DB_PASSWORD"
