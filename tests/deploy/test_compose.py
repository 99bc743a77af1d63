"""The compose file and the Dockerfiles, checked without running a container."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from backend.config import ENV_PREFIX, Settings
from tests.deploy.container import COMPOSE_FILE, DOCKER, DOCKERFILES, Image, example, locked, services
from tests.servers import ROOT

BUILT = ("migration", "server")
COMPOSE_FILES = sorted(DOCKER.glob("docker-compose*.yaml"))
SETTINGS = {ENV_PREFIX + name.upper() for name in Settings.model_fields}


def _tool(name: str, *arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    command = [Path(sys.executable).with_name(name), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("file", COMPOSE_FILES, ids=lambda file: file.name)
def test_a_compose_file_keeps_to_the_compose_specification(file: Path) -> None:
    done = _tool("check-jsonschema", "--builtin-schema", "vendor.compose-spec", file)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda file: file.name)
def test_hadolint_has_nothing_to_say_about_a_dockerfile(dockerfile: Path) -> None:
    done = _tool("hadolint", "--no-color", dockerfile)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_each_dockerfile_is_a_services() -> None:
    used = {service["build"]["dockerfile"] for service in services(example()).values() if "build" in service}
    assert used == {f"docker/{file.name}" for file in DOCKERFILES}


def test_the_server_waits_for_the_migration_and_that_for_a_healthy_database() -> None:
    compose = services(example())
    assert compose["migration"]["depends_on"] == {"database": {"condition": "service_healthy"}}
    assert compose["server"]["depends_on"] == {"migration": {"condition": "service_completed_successfully"}}
    assert "restart" not in compose["migration"]  # it runs once


def test_the_services_run_the_commands_of_their_images() -> None:
    compose = services(example())
    assert not any({"command", "entrypoint"} & set(compose[name]) for name in BUILT)


def test_the_compose_file_uses_the_variables_of_the_example_and_the_server_knows_them() -> None:
    used = set(re.findall(r"(?<!\$)\$\{(\w+)", COMPOSE_FILE.read_text()))
    variables = set(example()) - {"COMPOSE_PROJECT_NAME"}
    ours = {name for name in variables if name.startswith(ENV_PREFIX)}
    assert used == variables
    assert ours <= SETTINGS
    assert {name for service in BUILT for name in services(example())[service]["environment"]} <= SETTINGS


def test_the_profiles_add_services_and_change_none() -> None:
    compose = services(example())
    profiles = {name: service.get("profiles") for name, service in compose.items()}
    assert {name for name, profile in profiles.items() if profile is None} == {"database", *BUILT}
    assert (profiles["proxy"], profiles["prometheus"], profiles["grafana"]) == (
        ["proxy"],
        ["monitoring"],
        ["monitoring"],
    )
    mounted = {volume.partition(":")[0] for service in compose.values() for volume in service.get("volumes", [])}
    there = {path for path in mounted if path.startswith("./")} - {"./proxy/certificates"}  # the user's own
    assert there
    assert all((DOCKER / path).exists() for path in there)


def test_the_built_services_can_change_no_file_and_gain_no_privilege() -> None:
    compose = services(example())
    for name in BUILT:
        assert compose[name]["read_only"] is True
        assert compose[name]["tmpfs"] == [Image.of("server").environment["PROMETHEUS_MULTIPROC_DIR"]]
        assert (compose[name]["cap_drop"], compose[name]["security_opt"]) == (["ALL"], ["no-new-privileges:true"])


def test_with_passwords_in_files_no_environment_holds_one() -> None:
    added = yaml.safe_load((DOCKER / "docker-compose.secrets.yaml").read_text())
    names = set(added["secrets"])
    assert names <= SETTINGS
    for name, service in services(example()).items():
        with_passwords = {key for key, value in service.get("environment", {}).items() if value in ("one", "two")}
        overridden = added["services"].get(name, {}).get("environment", {})
        assert {key for key in with_passwords if overridden[key] == ""} == with_passwords
        files = {Path(value).name for key, value in overridden.items() if key.endswith("_FILE")}
        assert files <= set(added["services"].get(name, {}).get("secrets", [])) <= names


@pytest.mark.parametrize("name", ["ZEUS_BSO_DB_USER", "ZEUS_BSO_DB_PASSWORD", "ZEUS_BSO_ROOT_PASSWORD"])
def test_nothing_starts_without_credentials(name: str) -> None:
    with pytest.raises(KeyError, match=name):
        services(example(**{name: ""}))


def test_the_example_has_the_defaults_and_no_password() -> None:
    credentials = {name: value for name, value in example().items() if "_DB_" in name or "_ROOT_" in name}
    assert services(credentials) == services(example())
    assert set(re.findall(r"^\w+PASSWORD=(.*)$", (DOCKER / ".env.example").read_text(), re.MULTILINE)) == {""}


def test_a_database_elsewhere_and_another_port_may_be_named() -> None:
    url = "mysql+pymysql://db.example/other"
    compose = services(example(ZEUS_BSO_DATABASE_URL=url, ZEUS_BSO_SERVER_PORT="9000"))
    assert all(compose[name]["environment"]["ZEUS_BSO_DATABASE_URL"] == url for name in BUILT)
    assert compose["server"]["ports"] == ["9000:8000"]


def test_the_images_share_all_layers_down_to_the_user_who_is_not_root() -> None:
    def shared(service: str) -> list[str]:
        lines = [line for line in Image.of(service).text.splitlines() if not line.startswith("#")]
        return lines[: lines.index("USER 10001")]

    assert shared("migration") == shared("server")
    for service in BUILT:
        assert re.findall(r"^USER .*$", Image.of(service).text, re.MULTILINE) == ["USER 10001"]


def test_what_the_images_copy_is_there_and_all_that_is_not_ignored() -> None:
    included = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert all((ROOT / name).exists() for name in included)
    for service in BUILT:
        copied = re.findall(r"^COPY (?!--from)(.+) \S+$", Image.of(service).text, re.MULTILINE)
        assert {name for line in copied for name in line.split()} == included


def test_the_lock_holds_what_the_server_and_its_build_need_and_no_torch() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    needed = project["project"]["dependencies"] + extras["server"] + extras["postgresql"]
    for lines, name in ((needed, "requirements.txt"), (project["build-system"]["requires"], "build-requirements.txt")):
        versions = locked(DOCKER / name)
        for requirement in map(Requirement, lines):
            assert requirement.specifier.contains(versions[canonicalize_name(requirement.name)]), "run make lock"
        assert not set(versions) & {"torch", "lightning", "pytorch-lightning", "zeus-ml"}


def test_each_locked_package_has_hashes_and_no_file_names_an_index() -> None:
    for file in DOCKER.glob("*requirements.txt"):
        text = file.read_text()
        requirements = re.split(r"\n(?=[\w.-]+==)", text)[1:]
        assert len(requirements) == len(locked(file)) > 0
        assert all("--hash=sha256:" in requirement for requirement in requirements)
        assert not re.search(r"^--(?!hash)|://", text, re.MULTILINE)
