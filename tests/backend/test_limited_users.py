"""A user limited to the jobs of a prefix: other jobs do not exist, on no page, in no file and for no action."""

import re
from typing import Any

import pytest
from click.testing import CliRunner
from flask import Flask
from flask.testing import FlaskClient

from backend.cli import main
from backend.usecases import tokens, users
from backend.usecases.audit import COMMAND_LINE
from backend.usecases.tokens import Scope
from backend.usecases.users import Role
from tests.calls import Calls
from tests.logins import PASSWORD, csrf, log_in

OWN, OTHER = "vision/resnet", "secret-speech"


@pytest.fixture
def client(client: FlaskClient, app: Flask, calls: Calls) -> FlaskClient:
    """A browser in which the administrator `ada` of the jobs of `vision/` is logged in. There is one other job."""
    for job_id in (OWN, OTHER):
        calls.must(calls.register(job_id=job_id, job_id_prefix=job_id))
        calls.converge(calls.trial(job_id))
        calls.trial(job_id)
    with app.app_context():
        users.create("ada", PASSWORD, Role.ADMIN, COMMAND_LINE, job_id_prefix="vision/")
        tokens.create("of the other team", Scope.RUN, job_id_prefix="secret")
        tokens.create("of all", Scope.RUN)
        tokens.create("of the team", Scope.RUN, job_id_prefix="vision/res")
    log_in(client, "ada")
    return client


def post(client: FlaskClient, path: str, **form: str) -> Any:
    return client.post(path, data=form | {"csrf_token": csrf(client.get("/admin/").text)})


@pytest.mark.parametrize(
    "path",
    [
        *("/admin/", "/admin/jobs/", "/admin/trials/", "/admin/audit/", "/admin/tokens/"),
        *("/admin/jobs/export/csv/", "/admin/trials/export/csv/", "/admin/audit/export/csv/"),
        *("/admin/trials/?search=train", "/admin/trials/?job=secret-speech", "/admin/jobs/?search=secret"),
    ],
)
def test_no_list_and_no_file_names_another_job(client: FlaskClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 200
    shown = re.sub(r'value="[^"]*"|href="[^"]*"|other team', "", answer.text)  # what the address itself says
    assert "secret" not in shown
    assert "of all" not in shown


def test_the_lists_show_the_own_jobs_and_count_nothing_else(client: FlaskClient) -> None:
    assert "data-live>(1)<" in client.get("/admin/jobs/").text
    assert "data-live>(2)<" in client.get("/admin/trials/").text
    assert OWN in client.get("/admin/audit/").text
    assert "of the team" in client.get("/admin/tokens/").text
    assert "<dt>Jobs</dt><dd>1</dd>" in client.get("/admin/").text


@pytest.mark.parametrize(
    "path",
    [
        *("/admin/job/?job={}", "/admin/job/plots?job={}", "/admin/job/export?job={}"),
        *("/admin/trial/?job={}&number=1", "/admin/trial/plots?job={}&number=1"),
    ],
)
def test_the_page_of_another_job_is_that_of_a_missing_one(client: FlaskClient, path: str) -> None:
    assert client.get(path.format(OWN)).status_code == 200
    hidden, missing = client.get(path.format(OTHER)), client.get(path.format("nobody-s-job1"))
    assert (hidden.status_code, missing.status_code) == (404, 404)
    assert re.sub(r"csrf_token.*?>", "", hidden.text).replace(OTHER, "nobody-s-job1") == re.sub(
        r"csrf_token.*?>", "", missing.text
    )


@pytest.mark.parametrize(
    ("action", "form"),
    [
        ("end", {"number": "2"}),
        ("pause", {"paused": "1"}),
        ("reset", {}),
        ("delete", {"typed": OTHER}),
    ],
)
def test_no_action_reaches_another_job(client: FlaskClient, app: Flask, action: str, form: dict[str, str]) -> None:
    assert post(client, f"/admin/job/{action}?job={OTHER}", **form).status_code == 404
    with app.app_context():
        token = tokens.create("reads", Scope.READ)
    headers = {"Authorization": f"Bearer {token}"}
    job = app.test_client().get(f"/jobs/{OTHER}", headers=headers).json
    assert (job["trials"], job["running"], job["paused"]) == (2, 1, False)


@pytest.mark.parametrize(
    ("prefix", "status"), [("", 422), ("v", 422), ("secret", 422), ("vision/", 200), ("vision/x", 200)]
)
def test_a_limited_administrator_creates_tokens_for_the_own_jobs_only(
    client: FlaskClient, prefix: str, status: int
) -> None:
    answer = post(client, "/admin/tokens/", label="new", scope="run", prefix=prefix)
    assert answer.status_code == status
    assert ("bso_" in answer.text) is (status == 200)


def test_a_limited_administrator_revokes_tokens_for_the_own_jobs_only(client: FlaskClient, app: Flask) -> None:
    assert post(client, "/admin/tokens/revoke", label="of all").status_code == 404
    assert post(client, "/admin/tokens/revoke", label="of the other team").status_code == 404
    assert post(client, "/admin/tokens/revoke", label="of the team").status_code == 302
    with app.app_context():
        assert [token.label for token in tokens.list_all() if token.revoked_at] == ["of the team"]


def test_a_limited_administrator_manages_no_users(client: FlaskClient, app: Flask) -> None:
    assert "/admin/users/" not in client.get("/admin/").text
    assert client.get("/admin/users/").status_code == 403
    assert post(client, "/admin/users/", name="eve", password=PASSWORD, role="admin").status_code == 403
    assert post(client, "/admin/users/", changed="ada", prefix="").status_code == 403
    with app.app_context():
        assert [(user.name, user.job_id_prefix) for user in users.list_all()] == [("ada", "vision/")]


def test_the_command_line_limits_a_user_and_lifts_the_limit(database_url: str) -> None:
    def run(*arguments: str) -> str:
        return CliRunner().invoke(main, ["user", *arguments, f"--database-url={database_url}"], input=PASSWORD).output

    created = run("create", "ada", "--prefix=vision", "--password-stdin")
    assert created == "Created: ada, viewer, jobs beginning with vision\n"
    assert "vision…" in run("list")
    assert "it is empty or blank" in run("change", "ada", "--prefix=")
    assert "exclude each other" in run("change", "ada", "--prefix=x", "--all-jobs")
    assert "vision…" in run("list")
    run("change", "ada", "--all-jobs")
    assert re.search(r"ada +viewer +all ", run("list"))


@pytest.mark.parametrize("query", ["search=secret", f"job={OTHER}", f"like={OTHER}", f"job={OWN}&job={OTHER}"])
def test_another_job_is_neither_offered_nor_compared(client: FlaskClient, query: str) -> None:
    page = client.get(f"/admin/compare/?{query}").text
    assert f'name="job" value="{OTHER}"' not in page
    assert "recommended" not in page
