"""Ray beside the extras: nothing that the callback needs breaks `import ray`."""

from collections.abc import Callable

import pytest

from tests.libraries.conftest import Environment

DOCTOR = "from lightning_bso.console.cli import main; main(['doctor'])"


@pytest.fixture(scope="module")
def environment(new_environment: Callable[[], Environment]) -> Environment:
    """An environment with the callback's extra and Ray."""
    environment = new_environment()
    environment.install("lightning", "ray")
    return environment


@pytest.mark.timeout(1800)
def test_ray_and_the_callback_are_imported_side_by_side(environment: Environment) -> None:
    both = environment.run("import ray, lightning_bso; print(lightning_bso.ZeusBSOCallback.__name__)")
    assert (both.returncode, both.stdout) == (0, "ZeusBSOCallback\n"), both.stderr
    assert "amdsmi" not in environment.run(DOCTOR).stdout


@pytest.mark.timeout(1800)
def test_the_doctor_sees_that_zeus_breaks_ray_and_names_the_cure(environment: Environment) -> None:
    environment.pip("install", "zeus-ml")
    assert "libamd_smi.so" in environment.run("import ray").stderr
    assert "Run `pip uninstall amdsmi`" in " ".join(environment.run(DOCTOR).stdout.split())
    environment.pip("uninstall", "--yes", "amdsmi")
    cured = environment.run("import ray, zeus.monitor")
    assert cured.returncode == 0, cured.stderr
    assert "amdsmi" not in environment.run(DOCTOR).stdout
