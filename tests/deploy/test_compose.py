"""The compose file and the image's contents, as far as they can be checked without a container engine."""

import re
import subprocess
import sys
from pathlib import Path

from backend.config import ENV_PREFIX, Settings
from tests.servers import ROOT

DOCKER = ROOT / "docker"


def test_the_compose_file_keeps_to_the_compose_specification() -> None:
    checker = Path(sys.executable).with_name("check-jsonschema")
    command = [checker, "--builtin-schema", "vendor.compose-spec", DOCKER / "docker-compose.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_compose_file_uses_the_variables_of_the_example_and_the_server_knows_them() -> None:
    used = set(re.findall(r"\$\{(ZEUS_BSO_\w+)", (DOCKER / "docker-compose.yaml").read_text()))
    example = set(re.findall(r"^(\w+)=", (DOCKER / ".env.example").read_text(), re.MULTILINE))
    assert used == example
    assert example <= {ENV_PREFIX + name.upper() for name in Settings.model_fields}


def test_what_the_image_copies_is_there_and_not_ignored() -> None:
    copied = re.findall(r"^COPY (.+) \S+$", (DOCKER / "Dockerfile.server").read_text(), re.MULTILINE)
    names = {name for line in copied for name in line.split()}
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert names == kept
    assert all((ROOT / name).exists() for name in names)
