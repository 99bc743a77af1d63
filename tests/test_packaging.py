"""What the wheel and the sdist hold, and that it works where only its own dependencies are."""

import os
import re
import shutil
import subprocess
import sys
from email import message_from_bytes
from pathlib import Path
from zipfile import ZipFile

import pytest
import requests

from tests.databases import MariaDB
from tests.servers import ROOT, Server

PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")

BLOCKED = """
import sys
for name in ("torch", "lightning", "pytorch_lightning", "zeus", "flask", "sqlalchemy", "lightning_bso_server"):
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
def distributions(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The wheel and the sdist that it was built from, made without a network and from a copy of the sources."""
    folder = tmp_path_factory.mktemp("distributions")
    source = folder / "source"
    source.mkdir()
    for part in ROOT.iterdir():
        if part.name in ("lightning_bso", "backend", "examples", "tests"):
            shutil.copytree(part, source / part.name, ignore=shutil.ignore_patterns("__pycache__"))
        elif part.is_file() and not part.name.startswith("."):
            shutil.copy(part, source)
    command = (sys.executable, "-m", "build", "--no-isolation", f"--outdir={folder}", str(source))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not (source / "build").exists()
    return sorted(path for path in folder.iterdir() if path.is_file())


@pytest.fixture(scope="module")
def wheel(distributions: list[Path]) -> Path:
    (made,) = (path for path in distributions if path.suffix == ".whl")
    return made


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the installed wheel. Its dependencies are those of this Python."""
    target = tmp_path_factory.mktemp("installed")
    subprocess.run([*PIP, "install", "--no-deps", "--no-index", f"--target={target}", str(wheel)], check=True)
    return target


class WheelServer(Server):
    """`lightning-bso serve` of the installed wheel."""

    def __init__(self, installed: Path, database_url: str, folder: Path) -> None:
        super().__init__(database_url, folder, cold=True)
        self.installed = installed

    def command(self) -> list[str]:
        """Return the command that serves on a free port."""
        return [*console(self.installed), "serve", f"--port={self.port}", f"--database-url={self.database_url}"]


def console(installed: Path) -> list[str]:
    """Return the command `lightning-bso` of an installed wheel."""
    main = "from lightning_bso.console.cli import main"
    # -P: not the checkout in the current folder; the target comes before the checkout that is installed.
    return [sys.executable, "-P", "-c", f"import sys; sys.path.insert(0, {str(installed)!r}); {main}; sys.exit(main())"]


def run(*command: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, timeout=120, check=False)


def test_the_wheel_holds_the_client_and_the_server_under_names_of_their_own(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    sources = {
        str(Path(package, path.relative_to(ROOT / folder)))
        for folder, package in (("lightning_bso", "lightning_bso"), ("backend", "lightning_bso_server"))
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert names == sources


def test_both_distributions_are_ready_for_an_index(distributions: list[Path]) -> None:
    assert [path.suffix for path in distributions] == [".whl", ".gz"]
    command = (sys.executable, "-m", "twine", "--no-color", "check", "--strict", *distributions)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("PASSED") == 2


def test_the_changelog_s_newest_version_is_the_wheel_s(wheel: Path) -> None:
    headings = re.findall(r"^## \[(.+?)\](?: - (\d{4}-\d\d-\d\d))?$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    (version, date) = headings[1]
    assert headings[0] == ("Unreleased", "")
    assert (wheel.name.split("-")[1], bool(date)) == (version, True)


def test_the_installed_wheel_brings_a_server_that_trains_a_job(installed: Path, tmp_path: Path) -> None:
    with WheelServer(installed, f"sqlite:///{tmp_path}/bso.db", tmp_path) as server:
        calls = server.calls
        calls.register()
        calls.converge(calls.trial())
        page = requests.get(f"{server.url}/admin/job/?job=train", timeout=30)
        assert page.status_code == 200
        files = set(re.findall(r'(?:src|href)="(/admin/assets/[^"]+)"', page.text))
        assert files
        assert {requests.get(server.url + file, timeout=30).status_code for file in files} == {200}


def test_the_installed_wheel_upgrades_a_database_and_names_its_own_command(
    installed: Path, mariadb: MariaDB, tmp_path: Path
) -> None:
    url = mariadb.empty_database()
    refused = run(*console(installed), "serve", "--port=0", f"--database-url={url}", folder=tmp_path)
    assert refused.returncode == 1
    assert "lightning-bso server db upgrade" in refused.stderr
    upgraded = run(*console(installed), "server", "db", "upgrade", f"--database-url={url}", folder=tmp_path)
    assert upgraded.returncode == 0, upgraded.stderr
    checked = run(*console(installed), "server", "db", "check", f"--database-url={url}", folder=tmp_path)
    assert checked.returncode == 0, checked.stderr


def test_the_installed_wheel_takes_nobody_s_name(installed: Path, tmp_path: Path) -> None:
    code = f"import sys; sys.path.insert(0, {str(installed)!r}); import lightning_bso_server.cli; import backend"
    done = run(sys.executable, "-P", "-c", code, folder=tmp_path)
    assert done.stderr.rstrip().endswith("ModuleNotFoundError: No module named 'backend'")


def test_without_the_servers_packages_the_command_names_the_extra(installed: Path, tmp_path: Path) -> None:
    main = "import sys; sys.modules['flask'] = None; from lightning_bso.console.cli import main; sys.exit(main())"
    done = run(sys.executable, "-P", "-c", main, "server", "token", "list", folder=tmp_path)
    assert done.returncode == 1
    assert done.stderr.rstrip() == (
        "lightning-bso: the server cannot start: import of flask halted; None in sys.modules; "
        "pip install 'lightning-bso[server]'"
    )


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


def test_the_installed_wheel_works_without_framework_and_server(installed: Path, tmp_path: Path) -> None:
    code = f"import sys; sys.path.insert(0, {str(installed)!r})\n{BLOCKED}"
    done = run(sys.executable, "-P", "-c", code, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    origin, missing = done.stdout.splitlines()
    assert Path(origin).is_relative_to(installed)
    assert missing.startswith(("lightning", "torch"))
