"""New virtual environments, with this checkout and other packages installed from the index."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.servers import ROOT, environment

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
        return self._python("-c", code)

    def launch(self, script: Path, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        """Run a script outside of the checkout, with the package as it is installed and these variables set."""
        return self._python(str(script), *arguments, **variables)

    def _python(self, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        variables = environment(OMP_NUM_THREADS="1", **variables)
        variables.pop("PYTEST_CURRENT_TEST", None)  # of this test, in which no training recurs
        del variables["PYTHONPATH"]
        return subprocess.run(
            [str(self.python), *arguments],
            cwd=self.python.parent,
            env=variables,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )


@pytest.fixture(scope="module")
def new_environment(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Environment]:
    """A function that creates a virtual environment."""
    return lambda: Environment(tmp_path_factory.mktemp("environment"))
