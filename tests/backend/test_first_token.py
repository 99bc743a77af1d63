"""The first token closes the page and the API, so the page says so beforehand and offers to create a user with it."""

import html
import re
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from backend.usecases import tokens, users
from backend.usecases.audit import COMMAND_LINE
from backend.usecases.users import Role
from tests.calls import Calls
from tests.logins import PASSWORD, csrf, log_in

WARNING = "From the first token on, every call needs a token and this page needs a login"


def send(client: FlaskClient, **form: str) -> Any:
    token = csrf(client.get("/admin/tokens/").text)
    return client.post("/admin/tokens/", data={"label": "team", "scope": "run", "csrf_token": token} | form)


def test_the_token_and_its_creators_user_come_in_one_step(client: FlaskClient, app: Flask, calls: Calls) -> None:
    assert WARNING in client.get("/admin/tokens/").text
    answer = send(client, name="ada", password=PASSWORD)
    token = re.search(r'id="new-token">(bso_[^<]+)<', answer.text)
    assert token is not None
    assert WARNING not in answer.text
    page = client.get("/admin/tokens/").text
    assert "ada</a> (admin)" in page
    assert WARNING not in page
    assert app.test_client().get("/admin/").location.startswith("/admin/login/")
    assert calls.register().status == 401
    assert client.get("/jobs", headers={"Authorization": f"Bearer {token[1]}"}).status_code == 200
    with app.app_context():
        assert [(user.name, user.role) for user in users.list_all()] == [("ada", Role.ADMIN)]


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ({}, "Enter a name and a password for yourself"),
        ({"name": "ada", "password": "short"}, "a password must have 12 to 1024 characters"),
        ({"name": "", "password": PASSWORD}, "a user's name must have 1 to 255 printable characters"),
        ({"name": "ada", "password": PASSWORD, "label": "\x00"}, "label: it must have 1 to 255 printable characters"),
        ({"name": "ada", "password": PASSWORD, "days": "soon"}, "Enter a number of days"),
    ],
)
def test_a_refused_form_creates_neither_and_keeps_what_was_typed(
    client: FlaskClient, app: Flask, form: dict[str, str], message: str
) -> None:
    answer = send(client, **{"prefix": 'vision"/', "scope": "admin", "days": "30"} | form)
    page = html.unescape(answer.text)
    assert answer.status_code == 422
    assert message in page
    assert 'name="prefix" maxlength="255" value="vision"/"' in page
    assert "<option selected>admin</option>" in page
    assert f'value="{form.get("days", "30")}"' in page
    assert f'value="{form.get("name", "")}"' in page
    assert PASSWORD not in page
    with app.app_context():
        assert (tokens.list_all(), users.list_all()) == ([], [])


def test_who_wants_no_user_is_told_how_to_get_in_again(client: FlaskClient, app: Flask) -> None:
    answer = send(client, no_user="1")
    assert "bso_" in answer.text
    assert "user create NAME --role admin" in answer.text
    assert client.get("/admin/").status_code == 302


def test_a_later_token_creates_no_user(client: FlaskClient, app: Flask) -> None:
    with app.app_context():
        users.create("ada", PASSWORD, Role.ADMIN, COMMAND_LINE)
    log_in(client, "ada")
    assert "bso_" in send(client, name="eve", password=PASSWORD).text
    with app.app_context():
        assert [user.name for user in users.list_all()] == ["ada"]


def test_revoking_asks_first(client: FlaskClient, app: Flask) -> None:
    with app.app_context():
        tokens.create("team", tokens.Scope.RUN)
        users.create("ada", PASSWORD, Role.ADMIN, COMMAND_LINE)
    log_in(client, "ada")
    page = client.get("/admin/tokens/").text
    assert re.search(r"<details><summary[^>]*>Revoke…</summary>.*Revoke for good</button></form></details>", page)
