"""Read the compose file and the two Dockerfiles, so that tests can run the same commands without a container engine."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from dotenv import dotenv_values

from tests.servers import ROOT

DOCKER = ROOT / "docker"
COMPOSE_FILE = DOCKER / "docker-compose.yaml"
DOCKERFILES = sorted(DOCKER.glob("Dockerfile.*"))

_VARIABLE = re.compile(r"\$(?:\$|\{(?P<name>\w+)(?::(?P<operator>[-?])(?P<word>[^}]*))?\})")


@dataclass(frozen=True)
class Image:
    """A Dockerfile."""

    text: str

    @classmethod
    def of(cls, service: str) -> "Image":
        """Return the Dockerfile that a service is built from."""
        build = services(example())[service]["build"]
        assert (DOCKER / build["context"]).resolve() == ROOT
        return cls((ROOT / build["dockerfile"]).read_text())

    @property
    def command(self) -> list[str]:
        """The command of a container."""
        return self._json("CMD")

    @property
    def healthcheck(self) -> list[str]:
        """The command that checks whether a container is healthy."""
        return self._json("HEALTHCHECK CMD")

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables of the image, without those that compose adds."""
        return dict(re.findall(r"^ENV (\w+)=(\S+)$", self.text, re.MULTILINE))

    def _json(self, instruction: str) -> list[str]:
        (line,) = re.findall(rf"^{instruction} (\[.*\])$", self.text, re.MULTILINE)
        return list(json.loads(line))


def locked(file: Path) -> dict[str, str]:
    """Return the versions in a file that `make lock` has written."""
    return dict(re.findall(r"^([\w.-]+)==(\S+)", file.read_text(), re.MULTILINE))


def example(**changes: str) -> dict[str, str]:
    """Return the variables of `.env.example` with passwords filled in, and with changes."""
    variables = {name: value or "" for name, value in dotenv_values(DOCKER / ".env.example").items()}
    return variables | {"ZEUS_BSO_DB_PASSWORD": "one", "ZEUS_BSO_ROOT_PASSWORD": "two"} | changes


def services(variables: Mapping[str, str]) -> dict[str, Any]:
    """Return the compose file's services, with these variables inserted.

    Raises:
        KeyError: a required variable is missing or empty.
    """
    compose = yaml.safe_load(COMPOSE_FILE.read_text())
    return dict(_interpolated(compose["services"], variables))


def _interpolated(value: Any, variables: Mapping[str, str]) -> Any:
    def insert(match: re.Match[str]) -> str:
        if match["name"] is None:
            return "$"
        variable = variables.get(match["name"], "")
        if variable or match["operator"] is None:
            return variable
        if match["operator"] == "?":
            raise KeyError(match["name"])
        return match["word"]

    if isinstance(value, dict):
        return {name: _interpolated(part, variables) for name, part in value.items()}
    if isinstance(value, list):
        return [_interpolated(part, variables) for part in value]
    return _VARIABLE.sub(insert, value) if isinstance(value, str) else value
