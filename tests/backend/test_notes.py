"""Notes and tags on jobs and trials: written on the page, shown, found, and kept in the audit log."""

import html

from flask import Flask
from flask.testing import FlaskClient

from backend.usecases import users
from backend.usecases.audit import COMMAND_LINE
from backend.usecases.users import Role
from tests.calls import Calls
from tests.logins import PASSWORD, csrf, log_in

JOB, TRIAL = "/admin/job/?job=train", "/admin/trial/?job=train&number=1"


def write(client: FlaskClient, number: int, text: str, tags: str, status: int = 302) -> None:
    form = {"text": text, "tags": tags, "csrf_token": csrf(client.get(JOB).text)}
    assert client.post(f"/admin/job/note?job=train&number={number}", data=form).status_code == status


def test_a_note_is_shown_on_its_page_and_in_the_lists(client: FlaskClient, calls: Calls) -> None:
    calls.register()
    calls.trial()
    write(client, 0, "the baseline of <the> paper", "paper")
    write(client, 1, "the rack was hot", "heat")
    for path, text, tag in ((JOB, "the baseline of <the> paper", "paper"), (TRIAL, "the rack was hot", "heat")):
        page = client.get(path).text
        assert text in html.unescape(page)
        assert "<the>" not in page
        assert f">{tag}</a>" in page
        assert "own machine" in page
    assert "the baseline of" in client.get("/admin/jobs/").text
    assert "the rack was hot" in client.get("/admin/trials/").text
    assert "the rack was hot" in client.get("/admin/trials/export/csv/").text


def test_jobs_and_trials_are_found_by_their_tags(client: FlaskClient, calls: Calls) -> None:
    calls.register()
    calls.register(job_id="train-b")
    for job in ("train", "train", "train-b"):
        calls.trial(job)
    write(client, 0, "", "paper, v2")
    write(client, 2, "", "heat")
    for path, rows in {
        "jobs/?tag=Paper": 1,
        "jobs/?tag=pap": 0,
        "jobs/?tag=heat": 0,
        "trials/?tag=heat": 1,
        "trials/?tag=v_": 0,
    }.items():
        assert f"data-live>({rows})<" in client.get(f"/admin/{path}").text, path


def test_a_note_is_replaced_and_removed_and_the_audit_log_keeps_all(client: FlaskClient, calls: Calls) -> None:
    calls.register()
    write(client, 0, "first", "a b")
    write(client, 0, "second", "")
    assert "first" not in client.get(JOB).text
    write(client, 0, " ", "")
    assert "second" not in client.get(JOB).text
    entries = calls.must(calls("GET", "/audit?job_id=train"))["entries"]
    assert [entry["detail"] for entry in entries if entry["action"] == "note"] == [
        "job: removed",
        "job: second",
        "job: first  a b",
    ]
    calls.delete()
    calls.register()
    assert "second" not in client.get(JOB).text


def test_a_bad_tag_and_an_unknown_trial_are_refused_with_the_reason(client: FlaskClient, calls: Calls) -> None:
    calls.register()
    write(client, 0, "kept?", "<b>", status=422)
    assert "kept?" not in client.get(JOB).text
    write(client, 7, "no such trial", "", status=404)


def test_viewers_read_notes_and_write_none(app: Flask, client: FlaskClient, calls: Calls) -> None:
    calls.register()
    write(client, 0, "read me", "")
    with app.app_context():
        users.create("viewer", PASSWORD, Role.VIEWER, COMMAND_LINE)
    log_in(client, "viewer")
    page = client.get(JOB).text
    assert "read me" in page
    assert "Note and tags" not in page
    form = {"text": "mine", "csrf_token": csrf(page)}
    assert client.post("/admin/job/note?job=train&number=0", data=form).status_code == 403
