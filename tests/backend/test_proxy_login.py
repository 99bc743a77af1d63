"""Single sign-on: a trusted proxy names the user in a header, and nobody else can."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
from flask import Flask
from flask.testing import FlaskClient

from backend.config import SettingsError, load_settings
from backend.usecases import audit, users
from backend.usecases.audit import COMMAND_LINE
from backend.usecases.users import Role
from tests.calls import Calls
from tests.databases import in_application
from tests.logins import PASSWORD, csrf, log_in
from tests.servers import Server

HEADER = "RemoteUser"
NAMES = {"X-Forwarded-Host": "localhost"}


@pytest.fixture
def client(make_app: Callable[..., Flask]) -> FlaskClient:
    """A browser behind a trusted proxy. `ada` is an administrator, `bob` views `vision`, `eve` is disabled."""
    return prepared(make_app(trusted_proxies="127.0.0.1", auth_header=HEADER))


def prepared(app: Flask) -> FlaskClient:
    with app.app_context():
        users.create("ada", None, Role.ADMIN, COMMAND_LINE)
        users.create("bob", PASSWORD, Role.VIEWER, COMMAND_LINE, job_id_prefix="vision")
        users.create("eve", PASSWORD, Role.ADMIN, COMMAND_LINE)
        users.change("eve", COMMAND_LINE, disabled=True)
    return app.test_client()


def get(client: FlaskClient, user: str, path: str = "/admin/") -> Any:
    return client.get(path, headers=NAMES | {HEADER: user})


def test_a_known_user_has_the_role_and_the_jobs_that_the_server_knows(client: FlaskClient) -> None:
    page = get(client, "ada").text
    assert "ada</a> (admin)" in page
    assert "Log out" not in page
    assert get(client, "ada", "/admin/users/").status_code == 200
    assert "bob</a> (viewer, vision…)" in get(client, "bob").text
    assert get(client, "bob", "/admin/tokens/").status_code == 403


@pytest.mark.parametrize("name", ["eve", "joe", "ADA", "ada,bob", "ada\t", "'", "<b>", "a" * 300])
def test_unknown_and_disabled_users_are_refused(client: FlaskClient, name: str) -> None:
    expected = 200 if name.strip() == "ada" else 403
    for path in ("/admin/", "/admin/tokens/", "/admin/login/"):
        answer = client.get(path, headers=NAMES | {HEADER: name}, follow_redirects=True)
        assert answer.status_code == expected
        assert (expected == 200) is ("Log in" not in answer.text and "is unknown here" not in answer.text)


def test_a_default_role_lets_unknown_users_in_but_no_disabled_one(make_app: Callable[..., Flask]) -> None:
    client = prepared(make_app(trusted_proxies="127.0.0.1", auth_header=HEADER, auth_default_role="operator"))
    assert "joe</a> (operator)" in get(client, "joe").text
    assert get(client, "joe", "/admin/tokens/").status_code == 403
    assert get(client, "eve").status_code == 403
    assert get(client, "a" * 300).status_code == 403
    for other_spelling in ("Eve", "BOB", "bob,x"):
        assert get(client, other_spelling).status_code == 403
    assert "bob</a> (viewer, vision…)" in get(client, "bob").text
    assert "José</a>" in get(client, "José".encode().decode("latin-1")).text


@pytest.mark.parametrize("proxies", ["", "10.0.0.0/8"])
def test_the_header_means_nothing_from_any_other_address(make_app: Callable[..., Flask], proxies: str) -> None:
    settings = {"trusted_proxies": proxies, "auth_header": HEADER} if proxies else {}
    client = prepared(make_app(**settings))
    for name in (HEADER, "REMOTEUSER", "remoteuser"):
        assert client.get("/admin/", headers=NAMES | {name: "ada"}).location.startswith("/admin/login/")


def test_without_the_header_the_page_asks_for_a_password(client: FlaskClient) -> None:
    assert client.get("/admin/", headers=NAMES).location.startswith("/admin/login/")
    assert get(client, "").location.startswith("/admin/login/")
    assert log_in(client, "bob", headers=NAMES).status_code == 302
    assert "bob</a> (viewer" in client.get("/admin/", headers=NAMES).text


def test_a_user_without_a_password_cannot_log_in_with_one(client: FlaskClient) -> None:
    for guess in ("", "None", "null"):
        assert log_in(client, "ada", guess, headers=NAMES).status_code == 401


def test_the_header_counts_more_than_a_session(client: FlaskClient) -> None:
    log_in(client, "bob", headers=NAMES)
    assert "ada</a> (admin)" in get(client, "ada").text
    assert get(client, "joe").status_code == 403


def test_forms_need_their_csrf_token_and_the_audit_log_names_the_user(client: FlaskClient) -> None:
    form = {"label": "team", "scope": "run"}
    headers = NAMES | {HEADER: "ada"}
    assert client.post("/admin/tokens/", data=form, headers=headers).status_code == 400
    form["csrf_token"] = csrf(get(client, "ada", "/admin/tokens/").text)
    assert "bso_" in client.post("/admin/tokens/", data=form, headers=headers).text
    with client.application.app_context():
        entry = audit.page(COMMAND_LINE, None, 0, 1).entries[0]
    assert (entry.actor, entry.action) == ("user ada", "make token")


def test_an_administrator_creates_users_without_a_password(client: FlaskClient) -> None:
    headers = NAMES | {HEADER: "ada"}
    form = {"name": "joe", "password": "", "role": "viewer"}
    form["csrf_token"] = csrf(get(client, "ada", "/admin/users/").text)
    assert client.post("/admin/users/", data=form, headers=headers).status_code == 302
    assert "joe</a> (viewer)" in get(client, "joe").text


def test_the_api_does_not_read_the_header(client: FlaskClient) -> None:
    assert client.get("/jobs", headers={HEADER: "ada"}).status_code == 401
    assert Calls.through_test_client(client).register().status == 401


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"AUTH_HEADER": "RemoteUser"}, "  ZEUS_BSO_AUTH_HEADER needs ZEUS_BSO_TRUSTED_PROXIES"),
        (
            {"AUTH_HEADER": "RemoteUser", "TRUSTED_PROXIES": " , "},
            "  ZEUS_BSO_AUTH_HEADER needs ZEUS_BSO_TRUSTED_PROXIES",
        ),
        ({"AUTH_DEFAULT_ROLE": "viewer"}, "  ZEUS_BSO_AUTH_DEFAULT_ROLE has no meaning without"),
        ({"AUTH_HEADER": "X-User", "TRUSTED_PROXIES": "::1"}, "  ZEUS_BSO_AUTH_HEADER: "),
        (
            {"AUTH_HEADER": "RemoteUser", "TRUSTED_PROXIES": "::1", "AUTH_DEFAULT_ROLE": "admin"},
            "ZEUS_BSO_AUTH_DEFAULT_ROLE: ",
        ),
    ],
    ids=str,
)
def test_settings_that_nobody_could_mean_are_refused(
    settings: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(f"ZEUS_BSO_{name}", value)
    with pytest.raises(SettingsError) as refused:
        load_settings()
    assert message in str(refused.value)


@pytest.mark.parametrize(("proxies", "status"), [("127.0.0.1", 200), ("10.0.0.0/8", 302)])
def test_a_real_server_believes_only_the_trusted_proxy(proxies: str, status: int, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/bso.db"
    with Server(url, tmp_path, ZEUS_BSO_TRUSTED_PROXIES=proxies, ZEUS_BSO_AUTH_HEADER=HEADER) as server:
        with in_application(url):
            users.create("ada", None, Role.ADMIN, COMMAND_LINE)
        address = f"{server.url}/admin/users/"
        answer = requests.get(address, headers={HEADER: "ada"}, allow_redirects=False, timeout=30)
        assert answer.status_code == status
