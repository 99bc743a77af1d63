"""`make audit` without access to the vulnerability database."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
UNREACHABLE_PROXY = "http://127.0.0.1:1"


@pytest.mark.parametrize("variable", ["https_proxy", "HTTPS_PROXY"])
def test_without_the_service_it_says_so_in_one_line_and_fails_nothing(variable: str) -> None:
    # Remove the proxies of this shell, and the variables of an outer make that may run these tests.
    excluded = ("https_proxy", "no_proxy", "makeflags", "makelevel", "mflags")
    environment = {name: value for name, value in os.environ.items() if name.lower() not in excluded}
    done = subprocess.run(
        ["make", "audit"],
        cwd=ROOT,
        env=environment | {variable: UNREACHABLE_PROXY},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "Not audited: pypi.org cannot be asked about vulnerabilities from here.\n"
    assert done.stderr == ""
