"""Limits on failed logins: guessing ends after a few failures, and users are locked out no longer than necessary."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from time import monotonic
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import text

from backend.usecases import users
from backend.usecases.audit import COMMAND_LINE
from backend.usecases.users import Role
from tests.databases import connected
from tests.logins import PASSWORD, csrf, log_in

PER_ACCOUNT, PER_ADDRESS = 3, 8  # low limits, because checking a password is slow
AT_ONCE = 24
TOO_MANY = 429


@pytest.fixture(autouse=True)
def _two_users_and_low_limits(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(users, "MAX_FAILED_LOGINS_PER_ACCOUNT", PER_ACCOUNT)
    monkeypatch.setattr(users, "MAX_FAILED_LOGINS_PER_ADDRESS", PER_ADDRESS)
    with app.app_context():
        users.create("ada", PASSWORD, Role.ADMIN, COMMAND_LINE)
        users.create("otto", PASSWORD, Role.OPERATOR, COMMAND_LINE)


def guess(client: FlaskClient, times: int, name: str = "ada", **headers: str) -> None:
    """Log in with a wrong password some times. No attempt is refused by the limit."""
    for number in range(times):
        sent = {header: value.format(number) for header, value in headers.items()}
        assert log_in(client, name.format(number), "guess", headers=sent).status_code == 401


def test_guessing_a_password_ends_after_a_few_failures_even_with_the_right_one(client: FlaskClient) -> None:
    guess(client, PER_ACCOUNT)
    refused = log_in(client, "ada")
    assert refused.status_code == TOO_MANY
    assert "wait 15 minutes" in refused.text
    assert log_in(client, "otto").status_code == 302


def test_guessing_names_from_one_address_ends_too_and_typed_names_are_not_stored(
    client: FlaskClient, database_url: str
) -> None:
    guess(client, PER_ADDRESS, "name {}")
    assert log_in(client, "otto").status_code == TOO_MANY
    with connected(database_url) as connection:
        actors = " ".join(connection.execute(text("SELECT actor FROM audit")).scalars())
    assert "name 7" not in actors  # it may have been a password


def test_a_password_typed_as_a_name_cannot_be_found_in_the_audit_log_by_a_dictionary(
    client: FlaskClient, database_url: str
) -> None:
    guess(client, 1, PASSWORD)
    with connected(database_url) as connection:
        (tried,) = connection.execute(text("SELECT actor FROM audit WHERE action = 'try to log in'")).scalars()
    assert tried.startswith("unknown user ")
    assert tried.removeprefix("unknown user ") not in sha256(PASSWORD.encode()).hexdigest()


def test_guesses_at_a_name_that_nobody_has_are_counted_by_all_servers_together(
    client: FlaskClient, make_app: Callable[..., Flask]
) -> None:
    guess(client, PER_ACCOUNT, "nobody")
    guess(client, 1, "somebody else")
    assert log_in(make_app().test_client(), "nobody").status_code == TOO_MANY


def test_any_number_of_logins_that_succeed_is_no_guessing(client: FlaskClient) -> None:
    for _ in range(PER_ADDRESS + 1):
        assert log_in(client, "ada").status_code == 302
        client.delete_cookie("bso_session")


def test_a_success_does_not_make_the_failures_before_it_undone(client: FlaskClient) -> None:
    guess(client, PER_ACCOUNT - 1)
    assert log_in(client, "ada").status_code == 302
    client.delete_cookie("bso_session")
    guess(client, 1)
    assert log_in(client, "ada").status_code == TOO_MANY


def test_a_login_does_not_reset_the_failures_at_other_accounts(client: FlaskClient) -> None:
    guess(client, PER_ADDRESS - 1, "name {}")
    assert log_in(client, "otto").status_code == 302
    client.delete_cookie("bso_session")
    guess(client, 1)
    assert log_in(client, "ada").status_code == TOO_MANY


def test_further_attempts_do_not_prolong_the_wait(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    guess(client, PER_ACCOUNT)
    failed_at = monotonic()
    for _ in range(PER_ACCOUNT):
        assert log_in(client, "ada").status_code == TOO_MANY
    monkeypatch.setattr(users, "WINDOW_S", monotonic() - failed_at)  # now only the failures are outside the window
    assert log_in(client, "ada").status_code == 302


def test_refusals_are_recorded_once(client: FlaskClient, database_url: str) -> None:
    guess(client, PER_ACCOUNT)
    for _ in range(3):
        assert log_in(client, "ada").status_code == TOO_MANY
    with connected(database_url) as connection:
        rows = connection.execute(text("SELECT actor, detail FROM audit WHERE action = 'refuse to log in'")).all()
    assert [tuple(row) for row in rows] == [("user ada", f"{PER_ACCOUNT} attempts have failed")]


@pytest.mark.parametrize(("name", "limit"), [("ada", PER_ACCOUNT), ("name {}", PER_ADDRESS)])
def test_a_forged_address_does_not_evade_the_limit(client: FlaskClient, name: str, limit: int) -> None:
    guess(client, limit, name, **{"X-Forwarded-For": "203.0.113.{}"})
    assert log_in(client, "ada", headers={"X-Forwarded-For": "198.51.100.1"}).status_code == TOO_MANY


def test_an_address_forged_before_a_proxy_does_not_evade_the_limit(make_app: Callable[..., Flask]) -> None:
    client = make_app(trusted_proxies="127.0.0.1").test_client()
    guess(client, PER_ADDRESS, "name {}", **{"X-Forwarded-For": "198.51.100.{}, 203.0.113.9"})
    refused = log_in(client, "ada", headers={"X-Forwarded-For": "198.51.100.99, 203.0.113.9"})
    assert refused.status_code == TOO_MANY
    assert log_in(client, "ada", headers={"X-Forwarded-For": "203.0.113.9, 203.0.113.10"}).status_code == 302


def test_many_guesses_at_once_do_not_slip_past(app: Flask) -> None:
    clients = [app.test_client() for _ in range(AT_ONCE)]
    tokens = [csrf(client.get("/admin/login/").text) for client in clients]

    def post(client: FlaskClient, token: str) -> Any:
        return client.post("/admin/login/", data={"name": "ada", "password": "guess", "csrf_token": token})

    with ThreadPoolExecutor(AT_ONCE) as pool:
        statuses = [answer.status_code for answer in pool.map(post, clients, tokens)]
    assert statuses.count(401) == PER_ACCOUNT
    assert statuses.count(TOO_MANY) == AT_ONCE - PER_ACCOUNT
