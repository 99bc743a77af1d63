"""The meter and the power limits work with zeus-ml and with the later zeus package."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers import ROOT

LATER = Path(sys.prefix) / "zeus-later"


@pytest.mark.parametrize(("first_on_path", "release"), [(ROOT, "0.11"), (LATER, "0.1")], ids=["zeus-ml", "zeus"])
def test_both_releases_of_zeus_measure_two_gpus(first_on_path: Path, release: str) -> None:
    assert LATER.is_dir(), "the later zeus is missing; `make install` puts it there"
    run = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("two_gpus.py"))],
        env=os.environ
        | {"PYTHONPATH": f"{first_on_path}{os.pathsep}{ROOT}", "CUDA_VISIBLE_DEVICES": "GPU-8f11,GPU-8f10"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    version, measured = run.stdout.splitlines()[-2:]
    assert version.startswith(release)
    assert version.startswith("0.11") == (first_on_path == ROOT)
    assert measured == "nvml|Imaginary GPU|2|500.0|10.0"


def test_the_later_release_finds_the_cheapest_power_limit() -> None:
    tests = ["tests/lightning/test_power_limit.py", "-k", "cheapest or default or permission or kept"]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": f"{LATER}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert run.returncode == 0, run.stdout
