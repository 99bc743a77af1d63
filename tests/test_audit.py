"""`make audit` where the service that knows of vulnerabilities cannot be reached."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NOBODY = "http://127.0.0.1:1"


@pytest.mark.parametrize("variable", ["https_proxy", "HTTPS_PROXY"])
def test_without_the_service_it_says_so_in_one_line_and_fails_nothing(variable: str) -> None:
    left_out = (
        "https_proxy",
        "no_proxy",
        "makeflags",
        "makelevel",
        "mflags",
    )  # a make that runs the tests is another one
    environment = {name: value for name, value in os.environ.items() if name.lower() not in left_out}
    done = subprocess.run(
        ["make", "audit"], cwd=ROOT, env=environment | {variable: NOBODY}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "Not audited: pypi.org cannot be asked about vulnerabilities from here.\n"
    assert done.stderr == ""
