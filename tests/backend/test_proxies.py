"""A proxy in front of the server: only trusted proxies set the caller's address, and no proxy is a local caller."""

from collections.abc import Callable
from pathlib import Path

import pytest
import requests
from flask import Flask

from backend.usecases import users
from backend.usecases.audit import COMMAND_LINE
from backend.usecases.users import Role
from tests import specs
from tests.logins import PASSWORD, log_in
from tests.servers import Server, backend


def test_an_open_server_does_not_treat_a_proxys_calls_as_its_own_machines(tmp_path: Path) -> None:
    with Server(f"sqlite:///{tmp_path}/bso.db", tmp_path) as server:
        assert requests.get(f"{server.url}/jobs", timeout=30).status_code == 200
        forwarded = {"X-Forwarded-For": "203.0.113.9"}
        assert requests.get(f"{server.url}/jobs", headers=forwarded, timeout=30).status_code == 401


@pytest.mark.parametrize(("proxies", "address"), [("10.0.0.0/8", "127.0.0.1"), ("127.0.0.1", "203.0.113.9")])
def test_a_real_server_trusts_only_a_configured_proxy(proxies: str, address: str, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/bso.db"
    created = backend("token", "create", "--label=t", "--scope=admin", f"--database-url={url}", folder=tmp_path)
    headers = {"Authorization": f"Bearer {created.stdout.strip()}", "X-Forwarded-For": "198.51.100.1, 203.0.113.9"}
    with Server(url, tmp_path, ZEUS_BSO_TRUSTED_PROXIES=proxies) as server:
        assert requests.post(f"{server.url}/jobs", json=specs.job(), headers=headers, timeout=30).status_code == 201
        entries = requests.get(f"{server.url}/audit", headers=headers, timeout=30).json()["entries"]
    assert entries[0]["address"] == address


@pytest.mark.parametrize("headers", [{}, {"X-Forwarded-For": "127.0.0.1"}, {"X-Forwarded-Host": "localhost"}], ids=str)
def test_what_a_configured_proxy_sends_is_never_the_own_machines_call(
    make_app: Callable[..., Flask], headers: dict[str, str]
) -> None:
    client = make_app(trusted_proxies="127.0.0.1").test_client()
    assert client.get("/jobs", headers=headers).status_code == 401
    assert client.get("/admin/tokens/", headers=headers).status_code == 302


@pytest.mark.parametrize(("host", "status"), [("bso.example", 302), ("127.0.0.1:8000", 400)])
def test_forms_need_the_host_that_the_documentation_has_a_proxy_pass_on(
    make_app: Callable[..., Flask], host: str, status: int
) -> None:
    app = make_app(trusted_proxies="127.0.0.1")
    with app.app_context():
        users.create("ada", PASSWORD, Role.VIEWER, COMMAND_LINE)
    from_proxy = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https", "X-Forwarded-Host": host}
    from_browser = {"Referer": "https://bso.example/admin/login/"}
    assert log_in(app.test_client(), "ada", headers=from_proxy | from_browser).status_code == status


@pytest.mark.parametrize(("scheme", "secure"), [("https", True), ("http", False)])
def test_an_open_server_keeps_its_cookies_to_tls_where_the_browser_came_over_it(
    make_app: Callable[..., Flask], scheme: str, secure: bool
) -> None:
    app = make_app(trusted_proxies="127.0.0.1", insecure_open=True)
    with app.app_context():
        users.create("ada", PASSWORD, Role.VIEWER, COMMAND_LINE)
    from_proxy = {"X-Forwarded-Proto": scheme, "X-Forwarded-Host": "bso.example"}
    page = app.test_client().get("/admin/login/", headers=from_proxy)
    assert ("; Secure" in page.headers["Set-Cookie"]) is secure
