"""Users: valid names and passwords, and the time that a login takes."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from backend.errors import UnusableName, UnusablePassword
from backend.usecases import users
from backend.usecases.audit import COMMAND_LINE
from backend.usecases.users import MAX_PASSWORD_LENGTH, MIN_PASSWORD_LENGTH, Role
from tests.databases import dump
from tests.logins import PASSWORD, log_in
from tests.servers import backend

Make = Callable[..., None]
FULL_STRENGTH = users.HASH_METHOD  # fixtures lower it later


@pytest.fixture
def make(app: Flask) -> Make:
    """A function that creates a user."""

    def make(name: str = "ada", password: str = PASSWORD) -> None:
        with app.app_context():
            users.create(name, password, Role.VIEWER, COMMAND_LINE)

    return make


@pytest.mark.parametrize("name", ["", " ", " ada", "ada\n", "a\x00da", "a\tda", "a\u202eda", "a" * 256], ids=ascii)
def test_a_name_that_nobody_could_read_or_type_is_refused(make: Make, app: Flask, name: str) -> None:
    with pytest.raises(UnusableName, match="1 to 255 printable characters"):
        make(name)
    with app.app_context():
        assert users.list_all() == []


@pytest.mark.parametrize("name", ["a", "ada", "Ada Lovelace", "ada@example.org", "艾达", "a:b", "a" * 255], ids=ascii)
def test_any_other_name_logs_in(make: Make, client: FlaskClient, name: str) -> None:
    make(name)
    assert log_in(client, name).status_code == 302
    assert client.get("/admin/").status_code == 200


@pytest.mark.parametrize("length", [0, MIN_PASSWORD_LENGTH - 1, MAX_PASSWORD_LENGTH + 1])
def test_a_password_too_short_or_too_long_is_refused(make: Make, app: Flask, length: int) -> None:
    with pytest.raises(UnusablePassword, match="12 to 1024 characters"):
        make(password="x" * length)
    make()
    with app.app_context(), pytest.raises(UnusablePassword):
        users.change("ada", COMMAND_LINE, password="x" * length)


@pytest.mark.parametrize("length", [MIN_PASSWORD_LENGTH, MAX_PASSWORD_LENGTH])
def test_the_shortest_and_the_longest_password_log_in(make: Make, client: FlaskClient, length: int) -> None:
    make(password="é" * length)
    assert log_in(client, "ada", "é" * length).status_code == 302


def test_the_command_line_says_what_is_wrong_with_a_name(tmp_path: Path) -> None:
    done = backend("user", "create", "", "--password-stdin", folder=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: a user's name must have 1 to 255 printable characters")


def test_the_command_line_lists_the_users_as_text_and_as_json(make: Make, database_url: str, tmp_path: Path) -> None:
    make("ada")
    options = (f"--database-url={database_url}",)
    head, line = backend("user", "list", *options, folder=tmp_path).stdout.splitlines()
    assert (head.split()[:2], line.split()[:2]) == (["NAME", "ROLE"], ["ada", "viewer"])
    (account,) = json.loads(backend("user", "list", "--json", *options, folder=tmp_path).stdout)
    assert (account["name"], account["role"], account["disabled_at"]) == ("ada", "viewer", None)


def test_a_change_of_nothing_is_refused_and_ends_no_session(
    make: Make, client: FlaskClient, database_url: str, tmp_path: Path
) -> None:
    make("ada")
    log_in(client, "ada")
    done = backend("user", "change", "ada", f"--database-url={database_url}", folder=tmp_path)
    assert done.returncode == 2
    assert "give --role, --prefix, --all-jobs, --password" in done.stderr
    assert client.get("/admin/").status_code == 200


def test_a_password_is_hashed_at_full_strength_and_logs_in(
    make: Make, client: FlaskClient, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(users, "HASH_METHOD", FULL_STRENGTH)
    make()
    (row,) = dump(database_url)["users"]
    assert any(str(value).startswith("scrypt:32768:8:1$") for value in row)
    assert log_in(client, "ada", "guess").status_code == 401
    assert log_in(client, "ada").status_code == 302


@pytest.mark.parametrize("name", ["ada", "nobody", "gone"])
def test_a_wrong_password_costs_the_same_whether_or_not_there_is_such_a_user(
    make: Make, app: Flask, client: FlaskClient, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    make("ada")
    make("gone")
    with app.app_context():
        users.change("gone", COMMAND_LINE, disabled=True)
    checked: list[tuple[str, str]] = []
    original = users.check_password_hash

    def check(hashed: str, password: str) -> bool:
        checked.append((hashed.partition("$")[0], password))
        return original(hashed, password)

    monkeypatch.setattr(users, "check_password_hash", check)
    assert log_in(client, name, "guess").status_code == 401
    assert checked == [(users.HASH_METHOD, "guess")]
