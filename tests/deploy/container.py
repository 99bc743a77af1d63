"""What the compose file and the two Dockerfiles say, read so that a test can do the same without a container engine."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml
from dotenv import dotenv_values

from tests.servers import ROOT

DOCKER = ROOT / "docker"
COMPOSE_FILE = DOCKER / "docker-compose.yaml"
DOCKERFILES = sorted(DOCKER.glob("Dockerfile.*"))

_VARIABLE = re.compile(r"\$(?:\$|\{(?P<name>\w+)(?::(?P<otherwise>[-?])(?P<word>[^}]*))?\})")


@dataclass(frozen=True)
class Image:
    """A Dockerfile."""

    text: str

    @classmethod
    def of(cls, service: str) -> "Image":
        """The one that a service is built from."""
        build = services(example())[service]["build"]
        assert (DOCKER / build["context"]).resolve() == ROOT
        return cls((ROOT / build["dockerfile"]).read_text())

    @property
    def command(self) -> list[str]:
        """What a container runs."""
        return self._json("CMD")

    @property
    def healthcheck(self) -> list[str]:
        """What tells whether a container is healthy."""
        return self._json("HEALTHCHECK CMD")

    @property
    def environment(self) -> dict[str, str]:
        """What a container's environment has beside what compose adds."""
        return dict(re.findall(r"^ENV (\w+)=(\S+)$", self.text, re.MULTILINE))

    def _json(self, instruction: str) -> list[str]:
        (line,) = re.findall(rf"^{instruction} (\[.*\])$", self.text, re.MULTILINE)
        return list(json.loads(line))


def example(**changes: str) -> dict[str, str]:
    """The variables of `.env.example`, changed; passwords are for whoever copies it to choose."""
    given = {name: value or "" for name, value in dotenv_values(DOCKER / ".env.example").items()}
    return given | {"ZEUS_BSO_DB_PASSWORD": "one", "ZEUS_BSO_ROOT_PASSWORD": "two"} | changes


def services(variables: Mapping[str, str]) -> dict[str, Any]:
    """The compose file's services, with these variables put in.

    Raises:
        KeyError: the file insists on a variable that is missing or empty.
    """
    compose = yaml.safe_load(COMPOSE_FILE.read_text())
    return dict(_interpolated(compose["services"], variables))


def _interpolated(value: Any, variables: Mapping[str, str]) -> Any:
    def put_in(found: re.Match[str]) -> str:
        if found["name"] is None:
            return "$"
        given = variables.get(found["name"], "")
        if given or found["otherwise"] is None:
            return given
        if found["otherwise"] == "?":
            raise KeyError(found["name"])
        return found["word"]

    if isinstance(value, dict):
        return {name: _interpolated(part, variables) for name, part in value.items()}
    if isinstance(value, list):
        return [_interpolated(part, variables) for part in value]
    return _VARIABLE.sub(put_in, value) if isinstance(value, str) else value
