"""A form that the server refuses comes back with what was typed and the reason, without the browser's own check."""

import html
import re

import pytest
from flask import Flask
from flask.testing import FlaskClient

from backend.usecases import users
from backend.usecases.audit import COMMAND_LINE
from backend.usecases.users import Role
from tests.calls import Calls
from tests.logins import PASSWORD, csrf, log_in

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

JOB, TRIAL, DERIVE = "job/?job=train", "trial/?job=train&number=1", "job/derive?job=train"
NOTE, NOTE_ON_TRIAL = (f"job/note?job=train&number={number}" for number in (0, 1))
LONG = "x" * 300
SPEC = {
    "job_id": "other",
    "eta_knob": "0.5",
    "batch_sizes": "8, 16",
    "default_batch_size": "8",
    "target_metric": "0.5",
    "beta_knob": "",
    "max_epochs": "10",
}


@pytest.fixture
def client(client: FlaskClient, calls: Calls, app: Flask) -> FlaskClient:
    """A browser in which the administrator `ada` is logged in. The job `train` has a trial."""
    calls.register()
    calls.trial()
    with app.app_context():
        users.create("ada", PASSWORD, Role.ADMIN, COMMAND_LINE)
        users.create("bob", PASSWORD, Role.VIEWER, COMMAND_LINE)
    log_in(client, "ada")
    return client


@pytest.mark.parametrize(
    ("page", "action", "typed", "reason"),
    [
        (JOB, NOTE, {"text": "the <baseline>", "tags": "a/b"}, "tags: the tag 'a/b' must have"),
        (JOB, NOTE, {"text": "y" * 2001, "tags": "paper"}, "note: it has 2001 characters"),
        (TRIAL, NOTE_ON_TRIAL, {"text": "hot", "tags": "t" * 41}, "the tag 'ttt"),
        (TRIAL, NOTE_ON_TRIAL, {"text": "hot", "tags": " ".join(map(str, range(21)))}, "there are 21 tags"),
        (JOB, "job/delete?job=train", {"typed": "trian"}, "the typed text is not the job's id"),
        (DERIVE, DERIVE, SPEC | {"job_id": ""}, "Job id: "),
        (DERIVE, DERIVE, SPEC | {"job_id": LONG}, "Job id: "),
        (DERIVE, DERIVE, SPEC | {"eta_knob": "much"}, "eta, the weight of energy against time: "),
        (DERIVE, DERIVE, SPEC | {"eta_knob": "nan"}, "eta, the weight of energy against time: "),
        (DERIVE, DERIVE, SPEC | {"batch_sizes": "8, many"}, "Batch sizes, 'many': "),
        (DERIVE, DERIVE, SPEC | {"batch_sizes": ""}, "Batch sizes: "),
        (DERIVE, DERIVE, SPEC | {"default_batch_size": "12"}, "default_batch_size 12 is not"),
        (DERIVE, DERIVE, SPEC | {"max_epochs": "-1"}, "Most epochs: "),
        (DERIVE, DERIVE, SPEC | {"max_epochs": "9" * 400}, "Most epochs: "),
        (DERIVE, DERIVE, SPEC | {"job_id": "train"}, "train"),
        ("tokens/", "tokens/", {"label": "", "scope": "read", "prefix": "team", "days": "3"}, "label: "),
        ("tokens/", "tokens/", {"label": LONG, "scope": "read", "prefix": "team", "days": "3"}, "label: "),
        ("tokens/", "tokens/", {"label": "ci", "scope": "all", "prefix": "team", "days": "3"}, "Choose a scope"),
        ("tokens/", "tokens/", {"label": "ci", "scope": "read", "prefix": LONG, "days": "3"}, "prefix"),
        ("tokens/", "tokens/", {"label": "ci", "scope": "read", "prefix": "", "days": "soon"}, "a number of days"),
        ("tokens/", "tokens/", {"label": "ci", "scope": "read", "prefix": "", "days": "inf"}, "1 to 3650"),
        ("users/", "users/", {"name": "", "password": PASSWORD, "role": "viewer", "prefix": "team"}, "name"),
        ("users/", "users/", {"name": "eve", "password": "short", "role": "operator", "prefix": "team"}, "password"),
        ("users/", "users/", {"name": "eve", "password": "p" * 1025, "role": "viewer", "prefix": "a"}, "password"),
        ("users/", "users/", {"name": "bob", "password": PASSWORD, "role": "operator", "prefix": "team"}, "bob"),
        ("users/", "users/", {"name": "eve", "password": PASSWORD, "role": "root", "prefix": "team"}, "role: choose"),
        ("users/", "users/", {"changed": "bob", "role": "operator", "prefix": LONG}, "bob: "),
        ("users/", "users/", {"changed": "bob", "password": "short"}, "bob: "),
        ("account/", "account/", {"old": "wrong", "password": "p" * 12, "repeated": "p" * 12}, "old password is wrong"),
        ("account/", "account/", {"old": PASSWORD, "password": "p" * 12, "repeated": "q" * 12}, "passwords differ"),
        ("account/", "account/", {"old": PASSWORD, "password": "short", "repeated": "short"}, "password"),
    ],
)
def test_a_form_keeps_what_was_typed(
    client: FlaskClient, page: str, action: str, typed: dict[str, str], reason: str
) -> None:
    form = typed | {"csrf_token": csrf(client.get(f"/admin/{page}").text)}
    answer = client.post(f"/admin/{action}", data=form)
    assert 400 <= answer.status_code < 500
    said = html.unescape(" ".join(re.findall(r'role="alert">([^<]*)<', answer.text)))
    assert reason in said
    assert not re.search(r"loc|type=|pydantic|Value error", said)
    kept = {name: text for name, text in typed.items() if name not in ("old", "password", "repeated")}
    for name, text in kept.items():
        if text in ("all", "root"):  # no browser can send these
            continue
        assert text in texts(answer.text), name
    assert "correct horse" not in answer.text


@pytest.mark.parametrize(
    ("action", "page"), [(NOTE, JOB), (NOTE_ON_TRIAL, TRIAL), ("job/delete?job=train", JOB)], ids=str
)
def test_the_address_of_a_refused_form_leads_to_its_page(client: FlaskClient, action: str, page: str) -> None:
    assert client.get(f"/admin/{action}").location == f"/admin/{page}"


def texts(page: str) -> list[str]:
    """The texts in the fields of a page's forms."""
    fields = re.findall(r'<input[^>]* value="([^"]*)"|<textarea[^>]*>([^<]*)</textarea>|<option selected>(\w+)', page)
    return [html.unescape("".join(field)) for field in fields]


def test_a_refused_login_keeps_the_name(client: FlaskClient) -> None:
    client.delete_cookie("bso_session")
    answer = log_in(client, "ada", "wrong password")
    assert answer.status_code == 401
    assert "ada" in texts(answer.text)
    assert "wrong password" not in answer.text


@pytest.mark.parametrize("page", ["savings/", "jobs/", "trials/", "audit/"])
@pytest.mark.parametrize(
    ("first", "last", "reason"),
    [
        ("2026-02-30", "", "'2026-02-30' is not a day"),
        ("", "9999-12-31", "is not a day after 1970"),
        ("2026-03-01", "2026-02-01", "the first day, 2026-03-01, is after the last, 2026-02-01"),
    ],
)
def test_days_that_are_refused_are_kept(client: FlaskClient, page: str, first: str, last: str, reason: str) -> None:
    query = {name: text for name, text in {"from": first, "to": last}.items() if text}
    answer = client.get(f"/admin/{page}", query_string=query)
    assert answer.status_code == 200
    assert reason in html.unescape(answer.text)
    assert set(query.values()) <= set(texts(answer.text))


def test_a_note_of_as_many_characters_as_the_browser_allows_is_saved(client: FlaskClient) -> None:
    lines = "\r\n".join(["a" * 9] * 200)  # a browser counts 1999 characters
    form = {"text": lines, "tags": "", "csrf_token": csrf(client.get(f"/admin/{JOB}").text)}
    assert client.post(f"/admin/{NOTE}", data=form).status_code == 302
