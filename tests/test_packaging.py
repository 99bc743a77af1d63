"""What the wheel holds, and that it works where only its own dependencies are."""

import shutil
import subprocess
import sys
from email import message_from_bytes
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).resolve().parent.parent
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")

BLOCKED = """
import sys
for name in ("torch", "lightning", "pytorch_lightning", "zeus", "flask", "sqlalchemy", "backend"):
    sys.modules[name] = None  # importing it is an ImportError
import lightning_bso
from lightning_bso import BatchSizeOptimizer, BsoClient, JobSpec, ZeusBSOTrainFailError
BsoClient("http://127.0.0.1:1")
print(lightning_bso.__file__)
try:
    lightning_bso.ZeusBSOCallback
except ImportError as error:
    print(error.name)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built without a network, from a copy of the sources: a build leaves files behind."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for part in ROOT.iterdir():
        if part.name in ("lightning_bso", "backend", "examples", "tests"):
            shutil.copytree(part, source / part.name, ignore=shutil.ignore_patterns("__pycache__"))
        elif part.name in ("pyproject.toml", "setup.cfg", "LICENSE", "README.md"):
            shutil.copy(part, source)
    offline = ("--no-deps", "--no-build-isolation", "--no-index")
    subprocess.run([*PIP, "wheel", str(source), *offline, f"--wheel-dir={folder}"], check=True)
    (made,) = folder.glob("*.whl")
    return made


def test_the_wheel_holds_the_client_alone(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        names = archive.namelist()
    packages = {name.partition("/")[0] for name in names if ".dist-info/" not in name}
    assert packages == {"lightning_bso"}
    sources = {str(path.relative_to(ROOT)) for path in (ROOT / "lightning_bso").rglob("*.py")}
    assert sources <= set(names)


def test_the_wheel_is_marked_as_typed_and_brings_its_licence(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        names = archive.namelist()
    assert "lightning_bso/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_wheel_needs_no_framework_and_no_server(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        (metadata,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        required = message_from_bytes(archive.read(metadata)).get_all("Requires-Dist") or []
    always = {requirement.partition(">")[0] for requirement in required if "extra ==" not in requirement}
    assert always == {"pydantic", "requests", "tenacity"}


def test_the_installed_wheel_works_without_framework_and_server(wheel: Path, tmp_path: Path) -> None:
    target = tmp_path / "installed"
    subprocess.run([*PIP, "install", "--no-deps", "--no-index", f"--target={target}", str(wheel)], check=True)
    # -P: not the checkout in the current folder; the target comes before the checkout that is installed.
    run = subprocess.run(
        [sys.executable, "-P", "-c", f"import sys; sys.path.insert(0, {str(target)!r})\n{BLOCKED}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    origin, missing = run.stdout.splitlines()
    assert Path(origin).is_relative_to(target)
    assert missing.startswith(("lightning", "torch"))
