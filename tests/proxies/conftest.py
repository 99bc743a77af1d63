"""A real server below a path of a real proxy with TLS."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from backend.usecases import users
from backend.usecases.audit import COMMAND_LINE
from backend.usecases.users import Role
from lightning_bso import transport
from tests.databases import in_application
from tests.logins import PASSWORD
from tests.proxies.running import PROXIES, Authority
from tests.servers import Server, backend


@dataclass(frozen=True)
class Site:
    """A server behind a proxy."""

    url: str
    """Its address at the proxy."""
    authority: Authority
    token: str
    """An access token with all rights. The user `ada` has them too."""
    server: Server


@pytest.fixture(scope="session", params=sorted(PROXIES))
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server behind nginx, and one behind Caddy."""
    folder = tmp_path_factory.mktemp(request.param)
    database = f"sqlite:///{folder}/bso.db"
    authority = Authority(folder)
    with Server(database, folder, ZEUS_BSO_TRUSTED_PROXIES="127.0.0.1") as server:
        created = backend("token", "create", "--label=t", "--scope=admin", f"--database-url={database}", folder=folder)
        with in_application(database):
            users.create("ada", PASSWORD, Role.ADMIN, COMMAND_LINE)
        with PROXIES[request.param](f"127.0.0.1:{server.port}", folder, authority) as url:
            yield Site(url, authority, created.stdout.strip(), server)


@pytest.fixture
def trusted(site: Site, monkeypatch: pytest.MonkeyPatch) -> Site:
    """The site, whose authority this test's clients trust."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(site.authority.certificate))
    return site


@pytest.fixture
def untrusted(site: Site, monkeypatch: pytest.MonkeyPatch) -> Site:
    """The site, for clients that trust only the usual authorities."""
    for variable in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(variable, raising=False)
    return site


@pytest.fixture(autouse=True)
def _no_long_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the number of the client's attempts, but shorten the waits between them."""
    monkeypatch.setattr(transport, "BACKOFF_S", 0.01)
