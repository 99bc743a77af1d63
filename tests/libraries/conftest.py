"""New virtual environments, with this checkout and other packages installed from the index."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.servers import ROOT

INSTALL_TIMEOUT_S = 900


class Environment:
    """A virtual environment of a test's own."""

    def __init__(self, folder: Path) -> None:
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        self.python = folder / "bin" / "python"

    def pip(self, *arguments: str) -> None:
        """Run pip, with the versions that this checkout keeps to."""
        command = [str(self.python), "-m", "pip", *arguments, "--quiet", "--disable-pip-version-check"]
        subprocess.run(command, check=True, cwd=ROOT, timeout=INSTALL_TIMEOUT_S)

    def install(self, extras: str, *packages: str) -> None:
        """Install this checkout with extras, and other packages beside it."""
        constraints = ("--no-compile", "-c", str(ROOT / "constraints.txt"))
        self.pip("install", *constraints, "torch")  # first and alone, so that nothing else picks another build
        self.pip("install", *constraints, f"{ROOT}[{extras}]", *packages)

    def run(self, code: str) -> "subprocess.CompletedProcess[str]":
        """Run Python code outside of the checkout."""
        folder = self.python.parent
        return subprocess.run(
            [str(self.python), "-c", code], cwd=folder, capture_output=True, text=True, check=False, timeout=300
        )


@pytest.fixture(scope="module")
def new_environment(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Environment]:
    """A function that creates a virtual environment."""
    return lambda: Environment(tmp_path_factory.mktemp("environment"))
