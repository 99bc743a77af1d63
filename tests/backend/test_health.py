"""Health, readiness and the API documentation."""

import re
import sqlite3
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from backend.app import create_app
from backend.config import Settings
from tests.calls import Calls
from tests.databases import connected


def test_a_living_process_says_so(calls: Calls) -> None:
    assert calls.must(calls("GET", "/healthz")) == {"status": "alive"}


def test_a_server_with_the_right_schema_is_ready(calls: Calls) -> None:
    assert calls.must(calls("GET", "/readyz")) == {"status": "ready"}


def test_a_server_with_a_newer_schema_stays_ready_because_an_update_is_under_way(
    calls: Calls, database_url: str
) -> None:
    with connected(database_url) as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    assert calls.must(calls("GET", "/readyz")) == {"status": "ready"}


def test_a_server_with_an_older_schema_is_not_ready_but_alive(calls: Calls, database_url: str) -> None:
    with connected(database_url) as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0001'")
    answer = calls("GET", "/readyz")
    assert answer.status == 503
    assert answer.message
    assert calls("GET", "/healthz").status == 200


def test_a_server_without_its_database_is_not_ready_but_alive(tmp_path: Path) -> None:
    url = "mysql+pymysql://someone:s3cret-password@127.0.0.1:1/zeus"
    app = create_app(Settings(database_url=url, log_level="CRITICAL"), prepare_database=False)
    calls = Calls.through_test_client(app.test_client())
    for answer in (calls("GET", "/readyz"), calls("GET", "/jobs"), calls.ask()):
        assert answer.status == 503
        assert "s3cret" not in answer.text
        assert "pymysql" not in answer.text
    assert calls("GET", "/healthz").status == 200


@pytest.mark.timeout(30)
def test_readiness_and_reading_do_not_wait_for_a_writer(
    migrated_sqlite_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.database.extensions.SQLITE_BUSY_TIMEOUT_MS", 500)
    file = tmp_path / "bso.db"
    file.write_bytes(migrated_sqlite_file.read_bytes())
    app = create_app(Settings(database_url=f"sqlite:///{file}", log_level="CRITICAL"))
    calls = Calls.through_test_client(app.test_client())
    calls.register()
    writer = sqlite3.connect(file, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    try:
        for path in ("/jobs", "/jobs/train", "/jobs/train/trials", "/readyz"):
            assert (path, calls("GET", path).status) == (path, 200)
    finally:
        writer.close()


def test_every_call_of_the_protocol_is_documented(calls: Calls) -> None:
    paths = calls.must(calls("GET", "/openapi.json"))["paths"]
    documented = {(method.upper(), path) for path, methods in paths.items() for method in methods}
    assert documented >= {
        *(("POST", "/jobs"), ("GET", "/jobs"), ("DELETE", "/jobs"), ("GET", "/jobs/batch_size")),
        *(("POST", "/trials"), ("PATCH", "/trials"), ("POST", "/trials/heartbeat"), ("POST", "/report")),
        *(("GET", "/jobs/{job_id}"), ("GET", "/jobs/{job_id}/trials"), ("POST", "/jobs/{job_id}/reset")),
        *(("GET", "/healthz"), ("GET", "/readyz")),
    }
    report = paths["/report"]["post"]
    assert {"200", "400", "409", "422"} <= set(report["responses"])


def test_the_limits_of_fields_are_documented(calls: Calls) -> None:
    fields = calls.must(calls("GET", "/openapi.json"))["components"]["schemas"]["RegisteredJobSpec"]["properties"]
    assert (fields["eta_knob"]["minimum"], fields["eta_knob"]["maximum"]) == (0, 1)
    assert (fields["max_power"]["exclusiveMinimum"], fields["max_power"]["maximum"]) == (0, 1e30)
    assert fields["batch_sizes"]["uniqueItems"]
    assert fields["batch_sizes"]["items"] == {"type": "integer", "exclusiveMinimum": 0, "maximum": 2**31 - 1}
    control = re.compile(fields["gpu_model"]["pattern"])
    assert [text for text in ("A40", "A 40 ü", "A\t40", "A40\0", "\x9f") if control.match(text)] == ["A40", "A 40 ü"]


def test_answers_without_an_object_are_documented(calls: Calls) -> None:
    document = calls.must(calls("GET", "/openapi.json"))
    content = document["paths"]["/trials"]["patch"]["responses"]["200"]["content"]["application/json"]["schema"]
    end = document["components"]["schemas"][content["$ref"].rpartition("/")[2]]
    assert end["anyOf"] == [{"$ref": "#/components/schemas/EndAnswer"}, {"type": "null"}]
    assert document["components"]["schemas"]["Nothing"]["type"] == "null"
    assert "text/plain" in document["paths"]["/metrics"]["get"]["responses"]["200"]["content"]


def test_the_document_says_which_calls_need_a_token(calls: Calls) -> None:
    paths = calls.must(calls("GET", "/openapi.json"))["paths"]
    open_paths = {path for path, methods in paths.items() for call in methods.values() if not call.get("security")}
    assert open_paths == {"/healthz", "/readyz"}


def test_each_link_of_the_document_leads_to_a_call(calls: Calls) -> None:
    paths = calls.must(calls("GET", "/openapi.json"))["paths"]
    operations = {call["operationId"]: call for methods in paths.values() for call in methods.values()}
    links = {
        (operation_id, link["operationId"])
        for operation_id, call in operations.items()
        for response in call["responses"].values()
        for link in response.get("links", {}).values()
    }
    assert {("register", "ask_for_run"), ("ask_for_run", "report"), ("report", "after"), ("ask", "end")} <= links
    assert {target for _, target in links} <= operations.keys()


def test_the_documentation_page_loads_nothing_from_another_host(client: FlaskClient) -> None:
    page = client.get("/openapi/swagger", follow_redirects=True)
    assert page.status_code == 200
    loaded = re.findall(r"""(?:src|href)=["']([^"']+)["']""", page.text)
    assert loaded
    seen = set(loaded)
    for address in loaded:
        assert "//" not in address, address
        part = client.get(f"/openapi/{address}")
        assert part.status_code == 200, address
        if address.endswith(".css"):
            seen |= set(re.findall(r"""(?:url\(|@import\s+)["']?(https?:)?//""", part.text))
    assert not [address for address in seen if address.startswith(("http:", "https:"))]


def test_an_answer_carries_the_request_s_id(client: FlaskClient) -> None:
    assert client.get("/healthz", headers={"X-Request-ID": "abc-1"}).headers["X-Request-ID"] == "abc-1"
    generated = client.get("/healthz", headers={"X-Request-ID": "a b\t<script>"}).headers["X-Request-ID"]
    assert re.fullmatch(r"[0-9a-f]{16}", generated)


def test_a_fault_of_the_server_does_not_carry_its_text(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("s3cret internals")

    monkeypatch.setattr("backend.usecases.reading.list_jobs", fail)
    answer = Calls.through_test_client(app.test_client())("GET", "/jobs")
    assert answer.status == 500
    assert "s3cret" not in answer.text
    assert "log" in answer.message
