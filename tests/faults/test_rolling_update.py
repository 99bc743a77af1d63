"""An update under load: servers of the released version and of this one work side by side on one database.

`tests/backend/released/VERSION.tar.xz` holds the program of a released version.
"""

import subprocess
import sys
import tarfile
from collections.abc import Callable
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path

import pytest
from typing_extensions import override

from lightning_bso import BsoClient
from lightning_bso.errors import ServerRefused
from lightning_bso.wire import RegisteredJobSpec
from tests import specs
from tests.backend.test_released_databases import RELEASED
from tests.databases import DatabaseServer, migrate
from tests.faults.checks import assert_kept, is_ready
from tests.faults.load import Load
from tests.servers import Server, environment

PROGRAMS = sorted(RELEASED.glob("*.tar.xz"), key=lambda file: tuple(map(int, file.name.split(".")[:3])))
UPDATES = [
    pytest.param(system, program, id=f"{program.name.removesuffix('.tar.xz')}-{system}")
    for program in PROGRAMS
    for system in ("mariadb", "postgresql")
    if system == "mariadb" or program.name != "0.1.0.tar.xz"  # 0.1.0 does not know PostgreSQL
]
# Werkzeug serves, because the released version's own HTTP server is not installed.
# Its command line needs that server too.
UPGRADE = """
from backend.app import create_app
from backend.database import schema
with create_app(prepare_database=False).app_context():
    schema.upgrade()
"""
SERVE = """
from backend.app import create_app
from werkzeug.serving import make_server
server = make_server("127.0.0.1", {port}, create_app(), threaded=True)
print(f"Listening on http://127.0.0.1:{{server.port}}", flush=True)
server.serve_forever()
"""


class ReleasedServer(Server):
    """A server of a released version, whose program lies in its folder."""

    @override
    def command(self) -> list[str]:
        """Return the command that serves on `port`; 0: on a free one."""
        return [sys.executable, "-c", SERVE.format(port=self.port)]


@pytest.fixture
def released(tmp_path: Path) -> Callable[[Path, str], ReleasedServer]:
    """A function that creates an empty database's tables with a released program, and makes a server of it."""

    def make(program_file: Path, database_url: str) -> ReleasedServer:
        folder = tmp_path / "released"
        folder.mkdir()
        with tarfile.open(program_file) as program:
            program.extractall(folder, filter="data")
        number = program_file.name.removesuffix(".tar.xz")
        metadata = folder / f"lightning_bso-{number}.dist-info/METADATA"
        metadata.parent.mkdir()
        metadata.write_text(f"Metadata-Version: 2.1\nName: lightning-bso\nVersion: {number}\n")
        variables = {
            "PYTHONPATH": str(folder),
            "ZEUS_BSO_DATABASE_URL": database_url,
            "ZEUS_BSO_LOG_LEVEL": "INFO",
            "ZEUS_BSO_LOG_FORMAT": "json",
        }
        command = [sys.executable, "-c", UPGRADE]
        subprocess.run(command, cwd=folder, env=environment(**variables), check=True, capture_output=True)
        return ReleasedServer(database_url, folder, **variables)

    return make


def test_a_client_whose_job_an_older_server_does_not_know_is_told_both_versions(
    released: Callable[[Path, str], ReleasedServer], tmp_path: Path
) -> None:
    spec = RegisteredJobSpec.model_validate(specs.job(target_metric=None))
    versions = f"the server is lightning-bso 0.1.0 and this is {version('lightning-bso')}"
    with (
        released(RELEASED / "0.1.0.tar.xz", f"sqlite:///{tmp_path}/bso.db") as server,
        pytest.raises(ServerRefused, match=versions),
    ):
        BsoClient(server.url).register(spec)


@pytest.mark.parametrize(("system", "program"), UPDATES)
def test_during_an_update_old_and_new_servers_serve_the_same_job_and_nothing_is_lost(
    system: str,
    program: Path,
    request: pytest.FixtureRequest,
    released: Callable[[Path, str], ReleasedServer],
    serve: Callable[..., Server],
) -> None:
    database: DatabaseServer = request.getfixturevalue(system)
    url = database.empty_database()
    with ExitStack() as servers:
        old = servers.enter_context(released(program, url))
        with Load(old.url) as load:
            migrate(url)
            load.wait_for(40)
            new = servers.enter_context(serve(url))
            assert is_ready(new.calls)
            load.urls = (old.url, new.url)
            load.wait_for(100)
            load.urls = (new.url,)
            old.stop()
            load.wait_for(40)
        assert_kept(load, old, new)
