"""The import rules between the layers, and the modules that an import of the client's package loads."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import lightning_bso
from lightning_bso import JobParams, JobSpec

ROOT = Path(__file__).resolve().parent.parent
HEAVY = ("torch", "lightning", "zeus")


def loaded_after(statement: str) -> set[str]:
    """Return the top-level modules that a new interpreter has loaded after a statement."""
    script = (
        f"{statement}\nimport json, sys\nprint(json.dumps(sorted({{name.partition('.')[0] for name in sys.modules}})))"
    )
    run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(json.loads(run.stdout))


def test_the_import_rules_of_setup_cfg_hold() -> None:
    # Call the function of the console script, because the command itself may not be on the PATH.
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"]
    run = subprocess.run([*command, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert " 0 broken" in run.stdout


def test_the_core_imports_itself_numpy_and_how_numbers_are_written() -> None:
    files = (path for path in (ROOT / "backend" / "core").rglob("*.py") if path.name != "__init__.py")
    modules = ", ".join(str(path.relative_to(ROOT).with_suffix("")).replace("/", ".") for path in files)
    assert loaded_after(f"import {modules}") - loaded_after("import numpy.random") - sys.stdlib_module_names == {
        "backend",
        "lightning_bso",
    }


@pytest.mark.parametrize(
    "module", ["lightning_bso", "lightning_bso.wire", "lightning_bso.errors", "lightning_bso.console.cli"]
)
def test_importing_the_package_loads_neither_a_framework_nor_a_server(module: str) -> None:
    assert loaded_after(f"import {module}").isdisjoint({*HEAVY, "flask", "sqlalchemy", "backend", "numpy"})


def test_the_factory_loads_nothing_while_it_is_off() -> None:
    loaded = loaded_after("from lightning_bso.factory import make_callbacks\nassert make_callbacks() == []")
    assert loaded - sys.stdlib_module_names - loaded_after("") == {"lightning_bso"}


def test_the_client_without_a_framework_loads_none() -> None:
    loaded = loaded_after("from lightning_bso import BatchSizeOptimizer, BsoClient, JobSpec")
    assert "requests" in loaded
    assert loaded.isdisjoint({*HEAVY, "flask", "sqlalchemy", "backend"})


def test_the_callback_loads_neither_zeus_nor_a_server() -> None:
    loaded = loaded_after("from lightning_bso import ZeusBSOCallback")
    assert "lightning" in loaded
    assert loaded.isdisjoint({"zeus", "flask", "sqlalchemy", "backend"})


def test_every_public_name_can_be_imported() -> None:
    for name in lightning_bso.__all__:
        assert getattr(lightning_bso, name).__name__, name
    assert dir(lightning_bso) == sorted(lightning_bso.__all__)


def test_a_name_that_is_not_public_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'BatchsizeOptimizer'"):
        lightning_bso.BatchsizeOptimizer  # noqa: B018


def test_job_params_is_job_spec() -> None:
    assert JobParams is JobSpec
