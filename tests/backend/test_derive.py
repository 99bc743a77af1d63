"""Another eta, applied: a new job with the spec of another one."""

import html
import re
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from backend.usecases import audit, dashboard, users
from backend.usecases.audit import COMMAND_LINE
from backend.usecases.users import Role
from tests.calls import Calls
from tests.logins import PASSWORD, csrf, log_in

SPEC = {"policy": "gp-ucb", "eta_knob": 0.5, "beta_knob": None, "batch_sizes": [8, 16, 32]}
PAGE = "/admin/job/derive?job=train"


@pytest.fixture
def client(client: FlaskClient, calls: Calls, app: Flask) -> FlaskClient:
    """A browser in which the operator `ada` is logged in. The job `train` has converged runs."""
    calls.must(calls.register(**SPEC))
    for _ in range(4):
        calls.converge(calls.trial())
    with app.app_context():
        users.create("ada", PASSWORD, Role.OPERATOR, COMMAND_LINE)
    log_in(client, "ada")
    return client


def fields(page: str) -> dict[str, str]:
    """Return what the form would send."""
    form = re.search(r'<form method="post" class="narrow".*?</form>', page, re.DOTALL)
    assert form is not None
    inputs = re.findall(r'<input (?:type="(\w+)" )?name="(\w+)" value="([^"]*)"( checked)?', form[0])
    return {name: html.unescape(value) for kind, name, value, checked in inputs if kind != "checkbox" or checked}


def spec_of(app: Flask, job_id: str) -> dict[str, Any]:
    with app.app_context():
        return dashboard.spec(job_id, COMMAND_LINE).model_dump()


def test_the_sliders_eta_leads_to_a_form_that_registers_the_job(client: FlaskClient, app: Flask) -> None:
    page = client.get("/admin/job/?job=train").text
    assert re.search(r'<input id="eta" name="eta" form="derive" type="range"', page)
    assert "New job with this eta…" in page
    form = fields(client.get(f"{PAGE}&eta=0.25").text)
    assert form["job_id"] == "train-eta-0.25"
    answer = client.post(PAGE, data=form)
    assert answer.location == "/admin/job/?job=train-eta-0.25"
    page = client.get(answer.location).text
    assert "Give the training job_id &#39;train-eta-0.25&#39; and eta_knob 0.25" in page
    changed = {"job_id": "train-eta-0.25", "eta_knob": 0.25, "warm_start_from": "train"}
    assert spec_of(app, "train-eta-0.25") == spec_of(app, "train") | changed
    with app.app_context():
        entry = audit.page(COMMAND_LINE, "train-eta-0.25", 0, 10).entries[0]
    assert (entry.actor, entry.action) == ("user ada", "register")


def test_without_a_warm_start_the_job_knows_nothing(client: FlaskClient, app: Flask) -> None:
    form = fields(client.get(f"{PAGE}&eta=1").text)
    assert form.pop("warm") == "1"
    client.post(PAGE, data=form)
    assert spec_of(app, "train-eta-1") == spec_of(app, "train") | {"job_id": "train-eta-1", "eta_knob": 1.0}


@pytest.mark.parametrize("eta", ["", "x", "2", "-1", "nan", "1e999"])
def test_an_impossible_eta_is_that_of_the_other_job(client: FlaskClient, eta: str) -> None:
    assert fields(client.get(f"{PAGE}&eta={eta}").text)["eta_knob"] == "0.5"


@pytest.mark.parametrize(
    ("changes", "problem", "status"),
    [
        ({"eta_knob": "2"}, "eta, the weight of energy against time: ", 422),
        ({"eta_knob": "<b>"}, "eta, the weight of energy against time: ", 422),
        ({"batch_sizes": "8, x"}, "Batch sizes, 'x': ", 422),
        ({"batch_sizes": ""}, "Batch sizes: ", 422),
        ({"default_batch_size": "7"}, "default_batch_size 7 is not among batch_sizes", 422),
        ({"job_id": "other"}, "job_id must start with job_id_prefix", 422),
        ({"job_id": "train"}, "job 'train' is registered with another spec", 409),
        ({"target_metric": "0.123"}, "trains to another target", 422),
    ],
    ids=str,
)
def test_a_refused_form_keeps_what_was_typed(
    client: FlaskClient, app: Flask, changes: dict[str, str], problem: str, status: int
) -> None:
    form = fields(client.get(f"{PAGE}&eta=0.25").text) | changes
    answer = client.post(PAGE, data=form)
    assert answer.status_code == status
    assert problem in html.unescape(answer.text)
    kept = fields(answer.text)
    assert {name: kept[name] for name in form if name != "csrf_token"} == {
        name: value for name, value in form.items() if name != "csrf_token"
    }


def test_a_viewer_registers_nothing(client: FlaskClient, app: Flask) -> None:
    form = fields(client.get(PAGE).text)
    with app.app_context():
        users.create("bob", PASSWORD, Role.VIEWER, COMMAND_LINE)
    client.post("/admin/login/out", data={"csrf_token": form["csrf_token"]})
    log_in(client, "bob")
    page = client.get("/admin/job/?job=train").text
    assert "New job with this eta" not in page
    assert client.get(PAGE).status_code == 403
    assert client.post(PAGE, data=form | {"csrf_token": csrf(page)}).status_code == 403
