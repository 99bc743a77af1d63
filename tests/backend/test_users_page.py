"""The page of users, and a user's own page."""

import html
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from backend.usecases import audit, users
from backend.usecases.audit import COMMAND_LINE
from backend.usecases.users import Role
from tests.logins import PASSWORD, csrf, log_in

OTHER_PASSWORD = "another horse battery"


@pytest.fixture
def admin(client: FlaskClient, app: Flask) -> FlaskClient:
    """A browser in which the administrator `ada` is logged in. There is also the viewer `bob`."""
    with app.app_context():
        users.create("ada", PASSWORD, Role.ADMIN, COMMAND_LINE)
        users.create("bob", PASSWORD, Role.VIEWER, COMMAND_LINE)
    log_in(client, "ada")
    return client


def post(client: FlaskClient, path: str, **form: str) -> Any:
    return client.post(path, data=form | {"csrf_token": csrf(client.get("/admin/account/").text)})


def known(app: Flask) -> dict[str, tuple[str, str | None, bool]]:
    """Each user's role, prefix, and whether the user may log in."""
    with app.app_context():
        return {user.name: (user.role, user.job_id_prefix, user.disabled_at is None) for user in users.list_all()}


def latest_entries(app: Flask) -> list[str]:
    with app.app_context():
        page = audit.page(COMMAND_LINE, None, 0, 100)
    return [f"{entry.actor}: {entry.action}: {entry.detail}" for entry in page.entries]


def test_the_first_user_is_an_administrator_and_logged_in_at_once(client: FlaskClient, app: Flask) -> None:
    page = client.get("/admin/users/").text
    assert "From then on this page needs a login" in page
    form = {"name": "ada", "password": PASSWORD, "role": "viewer", "csrf_token": csrf(page)}
    assert client.post("/admin/users/", data=form).status_code == 302
    assert known(app) == {"ada": ("admin", None, True)}
    page = client.get("/admin/users/").text
    assert "ada (you)" in page
    assert "Created: ada, admin, all jobs" in page
    assert app.test_client().get("/admin/").status_code == 302


def test_an_administrator_creates_users(admin: FlaskClient, app: Flask) -> None:
    post(admin, "/admin/users/", name="eve", password=PASSWORD, role="operator", prefix=" vision/ ")
    post(admin, "/admin/users/", name="joe", password=PASSWORD, role="viewer", prefix="")
    assert known(app)["eve"] == ("operator", "vision/", True)
    assert known(app)["joe"] == ("viewer", None, True)
    assert "user ada: make user: eve, operator, jobs beginning with vision/" in latest_entries(app)
    assert log_in(app.test_client(), "eve").status_code == 302


@pytest.mark.parametrize(
    ("changes", "message", "status"),
    [
        ({"name": "bob"}, "a user 'bob' already exists", 409),
        ({"password": "short"}, "a password must have 12 to 1024 characters", 422),
        ({"role": "root"}, "role: choose one of viewer, operator, admin", 422),
        ({"name": ""}, "a user's name must have 1 to 255 printable characters", 422),
        ({"prefix": "   "}, "prefix: it is empty or blank", 422),
    ],
)
def test_a_refused_form_keeps_what_was_typed_except_the_password(
    admin: FlaskClient, app: Flask, changes: dict[str, str], message: str, status: int
) -> None:
    before = known(app)
    form = {"name": "<eve>", "password": OTHER_PASSWORD, "role": "operator", "prefix": 'a"b'} | changes
    answer = post(admin, "/admin/users/", **form)
    page = html.unescape(answer.text)
    assert answer.status_code == status
    assert message in page
    assert f'value="{form["name"]}"' in page
    assert f'value="{form["prefix"]}"' in page
    assert form["role"] == "root" or "<option selected>operator</option>" in page
    assert OTHER_PASSWORD not in page
    assert known(app) == before


def test_an_administrator_changes_rights_and_passwords_and_the_users_sessions_end(
    admin: FlaskClient, app: Flask
) -> None:
    bob = app.test_client()
    log_in(bob, "bob")
    assert post(admin, "/admin/users/", changed="bob", role="operator", prefix="vision").status_code == 302
    assert known(app)["bob"] == ("operator", "vision", True)
    assert bob.get("/admin/").status_code == 302
    post(admin, "/admin/users/", changed="bob", password=OTHER_PASSWORD)
    assert known(app)["bob"] == ("operator", "vision", True)
    assert log_in(bob, "bob").status_code == 401
    assert log_in(bob, "bob", OTHER_PASSWORD).status_code == 302
    post(admin, "/admin/users/", changed="bob", disabled="1")
    assert log_in(bob, "bob", OTHER_PASSWORD).status_code == 401
    assert "Let bob log in" in admin.get("/admin/users/").text
    post(admin, "/admin/users/", changed="bob", disabled="0")
    assert log_in(bob, "bob", OTHER_PASSWORD).status_code == 302
    post(admin, "/admin/users/", changed="bob", role="viewer", prefix="")
    assert known(app)["bob"] == ("viewer", None, True)
    changes = [entry for entry in latest_entries(app) if entry.startswith("user ada: change user: bob")]
    assert changes[::-1] == [
        "user ada: change user: bob: operator, jobs beginning with vision",
        "user ada: change user: bob: password",
        "user ada: change user: bob: disabled",
        "user ada: change user: bob: enabled",
        "user ada: change user: bob: viewer, all jobs",
    ]


def test_a_refused_change_opens_the_users_form_again(admin: FlaskClient, app: Flask) -> None:
    answer = post(admin, "/admin/users/", changed="bob", role="operator", prefix="  ")
    assert (answer.status_code, known(app)["bob"]) == (422, ("viewer", None, True))
    assert "bob: prefix: it is empty or blank" in answer.text
    assert answer.text.count("<details open>") == 1
    assert post(admin, "/admin/users/", changed="nobody", disabled="1").status_code == 404


@pytest.mark.parametrize("form", [{"role": "viewer"}, {"disabled": "1"}, {"prefix": "x"}, {"prefix": ""}])
def test_administrators_cannot_change_their_own_rights(admin: FlaskClient, app: Flask, form: dict[str, str]) -> None:
    answer = post(admin, "/admin/users/", changed="ada", **form)
    assert answer.status_code == 403
    assert "another administrator must change what you yourself may do" in answer.text
    assert known(app)["ada"] == ("admin", None, True)
    assert admin.get("/admin/users/").status_code == 200


@pytest.mark.parametrize("role", [Role.VIEWER, Role.OPERATOR])
def test_nobody_but_an_administrator_sees_the_users(client: FlaskClient, app: Flask, role: Role) -> None:
    with app.app_context():
        users.create("bob", PASSWORD, role, COMMAND_LINE)
    log_in(client, "bob")
    assert client.get("/admin/users/").status_code == 403
    assert post(client, "/admin/users/", name="eve", password=PASSWORD, role="admin").status_code == 403
    assert post(client, "/admin/users/", changed="bob", role="admin").status_code == 403
    assert known(app) == {"bob": (role, None, True)}


def test_every_user_changes_the_own_password_and_other_sessions_end(admin: FlaskClient, app: Flask) -> None:
    here, elsewhere = app.test_client(), app.test_client()
    log_in(here, "bob")
    log_in(elsewhere, "bob")
    new = {"password": OTHER_PASSWORD, "repeated": OTHER_PASSWORD}
    for form, message in (
        ({"old": "guess"} | new, "The old password is wrong."),
        ({"old": PASSWORD, "password": OTHER_PASSWORD, "repeated": "x"}, "The new passwords differ."),
        ({"old": PASSWORD, "password": "short", "repeated": "short"}, "a password must have 12 to 1024 characters"),
    ):
        answer = post(here, "/admin/account/", **form)
        assert (answer.status_code, message in answer.text) == (422, True)
    assert elsewhere.get("/admin/").status_code == 200
    assert post(here, "/admin/account/", old=PASSWORD, **new).status_code == 302
    assert "Your password is changed." in here.get("/admin/account/").text
    assert elsewhere.get("/admin/").status_code == 302
    assert log_in(elsewhere, "bob").status_code == 401
    assert log_in(elsewhere, "bob", OTHER_PASSWORD).status_code == 302
    assert "user bob: change user: bob: own password" in latest_entries(app)


def test_guesses_of_the_old_password_are_limited_like_logins(admin: FlaskClient) -> None:
    form = {"old": "guess", "password": OTHER_PASSWORD, "repeated": OTHER_PASSWORD}
    statuses = [post(admin, "/admin/account/", **form).status_code for _ in range(11)]
    assert statuses == [422] * 10 + [429]


def test_who_has_not_logged_in_has_no_password_to_change(client: FlaskClient) -> None:
    assert "You have no password here" in client.get("/admin/account/").text
    page = client.get("/admin/users/").text
    answer = client.post("/admin/account/", data={"old": "x", "csrf_token": csrf(page)})
    assert answer.status_code == 409
