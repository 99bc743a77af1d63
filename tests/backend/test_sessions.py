"""The end of a user's session."""

import time

import pytest
from flask import Flask
from flask.testing import FlaskClient

from backend.usecases import users
from backend.usecases.audit import COMMAND_LINE
from backend.usecases.users import Role
from backend.web.admin import login
from tests.calls import Calls
from tests.logins import PASSWORD, csrf, log_in

HOUR_S = 3600


class Clock:
    """The server's clock, which a test can move ahead."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def time(self) -> float:
        return time.time() + self.ahead_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(login, "time", clock)
    return clock


def test_a_session_is_over_12_hours_after_the_login_however_it_is_used(
    client: FlaskClient, calls: Calls, app: Flask, clock: Clock
) -> None:
    calls.register()
    with app.app_context():
        users.create("ada", PASSWORD, Role.ADMIN, COMMAND_LINE)
    log_in(client, "ada")
    for hours in range(0, 12, 3):
        clock.ahead_s = hours * HOUR_S
        page = client.get("/admin/job/?job=train")
        assert page.status_code == 200
        form = {"paused": "1", "csrf_token": csrf(page.text)}
        assert client.post("/admin/job/pause?job=train", data=form).status_code == 302  # its message sets a new cookie
    clock.ahead_s = 12 * HOUR_S + 5
    assert client.get("/admin/job/?job=train").location.startswith("/admin/login/")
    assert client.post("/admin/job/pause?job=train", data=form).location.startswith("/admin/login/")
    log_in(client, "ada")
    assert client.get("/admin/job/?job=train").status_code == 200


@pytest.mark.parametrize("stored", ["", "ada", "0:ada", "x:0:ada", "0:0:ada", "-1:0:ada", "99999999999:x:ada"])
def test_a_session_that_does_not_say_when_it_began_is_over(client: FlaskClient, app: Flask, stored: str) -> None:
    with app.app_context():
        users.create("ada", PASSWORD, Role.ADMIN, COMMAND_LINE)
    log_in(client, "ada")
    with client.session_transaction("/admin/") as session:
        session["_user_id"] = stored
    assert client.get("/admin/").location.startswith("/admin/login/")


@pytest.mark.parametrize("over", ["too old", "without a cookie"])
def test_a_form_of_a_session_that_is_over_does_nothing_and_leads_back_to_its_page(
    client: FlaskClient, calls: Calls, app: Flask, clock: Clock, over: str
) -> None:
    calls.register()
    with app.app_context():
        users.create("ada", PASSWORD, Role.ADMIN, COMMAND_LINE)
    log_in(client, "ada")
    page = "/admin/job/?job=train"
    form = {"paused": "1", "csrf_token": csrf(client.get(page).text)}
    if over == "too old":
        clock.ahead_s = 12 * HOUR_S + 5
    else:
        client.delete_cookie("bso_session")
    answer = client.post("/admin/job/pause?job=train", data=form, headers={"Referer": f"http://localhost{page}"})
    assert answer.location == "/admin/login/?next=/admin/job/?job%3Dtrain"
    login_page = client.get(answer.location).text
    assert "nothing was done" in login_page
    form = {"name": "ada", "password": PASSWORD, "csrf_token": csrf(login_page)}
    answer = client.post(answer.location, data=form)
    assert answer.location == page
    assert ">Pause<" in client.get(page).text


@pytest.mark.parametrize("referrer", ["https://evil.example/admin/", "//[", "", "http://localhost/jobs", "x" * 5000])
def test_a_form_from_anywhere_else_leads_to_the_overview(client: FlaskClient, app: Flask, referrer: str) -> None:
    with app.app_context():
        users.create("ada", PASSWORD, Role.ADMIN, COMMAND_LINE)
    answer = client.post("/admin/tokens/", headers={"Referer": referrer})
    assert answer.location.startswith("/admin/login/")
    form = {"name": "ada", "password": PASSWORD, "csrf_token": csrf(client.get(answer.location).text)}
    assert client.post(answer.location, data=form).location == "/admin/"
