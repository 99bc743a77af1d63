"""nginx logs a user in, and names the user to the server. What a caller writes into the header is dropped."""

from collections.abc import Iterator

import pytest
import requests

from backend.usecases import users
from backend.usecases.audit import COMMAND_LINE
from backend.usecases.users import Role
from tests.databases import in_application
from tests.logins import PASSWORD
from tests.proxies.running import Authority, nginx
from tests.servers import ROOT, Server

HEADER = "RemoteUser"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server behind an nginx that asks for a password. Its lines are those of docs/proxies.md."""
    folder = tmp_path_factory.mktemp("single-sign-on")
    (folder / "users").write_text(f"ada:{{PLAIN}}{PASSWORD}\neve:{{PLAIN}}{PASSWORD}\n")
    lines = (ROOT / "docs" / "proxies.md").read_text().split("```nginx\n")[1].split("```")[0]
    database = f"sqlite:///{folder}/bso.db"
    authority = Authority(folder)
    with (
        Server(database, folder, ZEUS_BSO_TRUSTED_PROXIES="127.0.0.1", ZEUS_BSO_AUTH_HEADER=HEADER) as server,
        nginx(f"127.0.0.1:{server.port}", folder, authority, lines) as address,
    ):
        with in_application(database):
            users.create("ada", None, Role.ADMIN, COMMAND_LINE)
            users.create("bob", None, Role.VIEWER, COMMAND_LINE)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("REQUESTS_CA_BUNDLE", str(authority.certificate))
            yield address


def get(url: str, name: str | None, **headers: str) -> requests.Response:
    login = None if name is None else (name, PASSWORD)
    return requests.get(f"{url}/admin/", auth=login, headers=headers, allow_redirects=False, timeout=30)


def test_who_has_logged_in_at_the_proxy_is_logged_in(url: str) -> None:
    assert "ada</a> (admin)" in get(url, "ada").text


def test_who_is_unknown_to_the_server_is_refused(url: str) -> None:
    assert get(url, "eve").status_code == 403


@pytest.mark.parametrize("header", [HEADER, "REMOTEUSER", "remoteuser"])
def test_nobody_becomes_another_user(url: str, header: str) -> None:
    assert "ada</a> (admin)" in get(url, "ada", **{header: "bob"}).text
    assert get(url, "eve", **{header: "ada"}).status_code == 403
    assert get(url, None, **{header: "ada"}).status_code == 401
