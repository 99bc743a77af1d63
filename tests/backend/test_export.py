"""The files of all trials and all reports: what is in them, who may read them, and how much memory they take."""

import csv
import io
import tracemalloc
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from pyarrow import parquet

from backend.usecases import exports, tokens
from backend.usecases.tokens import Scope
from backend.web import files
from lightning_bso.wire import RegisteredJobSpec, TrialRecord
from tests.calls import Calls

RENAMED = exports.NAMES


def fill(calls: Calls, *job_ids: str) -> None:
    """Register jobs with a converged, a diverged and a running trial, the last of two reports."""
    for job_id in job_ids:
        calls.must(calls.register(job_id=job_id, job_id_prefix=job_id, eta_knob=0.25, max_power=300))
        calls.converge(calls.trial(job_id, run_id="=cmd"), energy=12.5)
        calls.diverge(calls.trial(job_id))
        trial = calls.trial(job_id)
        for epoch in (1, 2):
            calls.must(calls.report(trial, time=epoch, energy=2.0 * epoch, metric=0.1 * epoch, current_epoch=epoch))


def rows(client: FlaskClient, table: str, **query: Any) -> list[dict[str, str]]:
    answer = client.get(f"/export/{table}", query_string=query)
    assert answer.status_code == 200, answer.text
    assert answer.mimetype == "text/csv"
    return list(csv.DictReader(io.StringIO(answer.text)))


def parquet_rows(client: FlaskClient, table: str) -> list[dict[str, Any]]:
    answer = client.get(f"/export/{table}?format=parquet")
    assert (answer.status_code, answer.mimetype) == (200, files.PARQUET)
    found: list[dict[str, Any]] = parquet.read_table(io.BytesIO(answer.data)).to_pylist()
    return found


def test_trials_have_everything_that_the_api_tells_of_them_and_of_their_jobs(client: FlaskClient, calls: Calls) -> None:
    fill(calls, "one", "other")
    exported = parquet_rows(client, "trials")
    told = []
    for job_id in ("one", "other"):
        spec = calls.describe(job_id)["spec"]
        spec["batch_sizes"] = " ".join(map(str, spec["batch_sizes"]))
        told += [
            {RENAMED.get(name, name): value for name, value in (trial | spec).items()}
            for trial in calls.records(job_id)
        ]
    for row in exported:
        row |= {
            name: value.isoformat().replace("+00:00", "Z") for name, value in row.items() if isinstance(value, datetime)
        }
    assert exported == told
    assert {"energy_j", "time_s", "cost_j", "eta_knob", "max_power_w", "epochs", "status"} <= exported[0].keys()


def test_reports_are_the_curves_of_every_trial(client: FlaskClient, calls: Calls) -> None:
    fill(calls, "one")
    exported = parquet_rows(client, "reports")
    assert [(row["trial_number"], row["report_number"]) for row in exported] == [(1, 1), (2, 1), (3, 1), (3, 2)]
    assert [row["metric"] for row in exported] == [1.0, None, 0.1, 0.2]
    last = exported[-1]
    assert (last["job_id"], last["epoch"], last["energy_j"], last["time_s"]) == ("one", 2, 4.0, 2.0)
    assert last["cost_j"] == 0.25 * 4.0 + 0.75 * 300 * 2.0
    assert [row["verdict"] for row in exported] == ["converged", "diverged", "continue", "continue"]
    assert (last["eta_knob"], last["max_power_w"]) == (0.25, 300)


@pytest.mark.parametrize("table", ["trials", "reports"])
def test_csv_and_parquet_have_the_same_columns_and_rows(client: FlaskClient, calls: Calls, table: str) -> None:
    fill(calls, "one", "other")
    as_text = [
        {name: "" if value is None else files.cell(value) for name, value in row.items()}
        for row in parquet_rows(client, table)
    ]
    assert rows(client, table) == [{name: str(value) for name, value in row.items()} for row in as_text]
    if table == "trials":
        assert rows(client, table)[0]["run_id"] == "'=cmd"


@pytest.mark.parametrize("part", [1, 2, 3, 1000])
def test_every_row_comes_once_however_the_parts_are_cut(
    client: FlaskClient, calls: Calls, monkeypatch: pytest.MonkeyPatch, part: int
) -> None:
    monkeypatch.setattr(exports, "PART", part)
    monkeypatch.setattr(files, "ROW_GROUP", 2)
    fill(calls, "one", "other", "third")
    trials = [(row["job_id"], row["trial_number"]) for row in parquet_rows(client, "trials")]
    assert trials == [(job_id, number) for job_id in ("one", "other", "third") for number in (1, 2, 3)]
    assert len(parquet_rows(client, "reports")) == len(rows(client, "reports")) == 12


def test_an_empty_server_exports_the_columns_alone(client: FlaskClient) -> None:
    for table in ("trials", "reports"):
        assert rows(client, table) == []
        assert parquet_rows(client, table) == []


def test_the_jobs_can_be_chosen(client: FlaskClient, calls: Calls) -> None:
    fill(calls, "one", "other", "third")
    assert {row["job_id"] for row in rows(client, "trials", job_id=["one", "third"])} == {"one", "third"}
    assert {row["job_id"] for row in rows(client, "reports", job_id="other")} == {"other"}
    assert client.get("/export/trials?job_id=nobody").status_code == 404
    page = client.get("/admin/export/?file=trials.csv&job=other")
    assert {row["job_id"] for row in csv.DictReader(io.StringIO(page.text))} == {"other"}
    assert page.headers["Content-Disposition"] == 'attachment; filename="trials.csv"'
    assert client.get("/admin/export/?file=trials.xls").status_code == 404
    assert client.get("/admin/export/?file=trials.csv&job=nobody").status_code == 404


def test_a_token_limited_to_some_jobs_exports_these_alone(client: FlaskClient, calls: Calls, app: Flask) -> None:
    fill(calls, "team-a", "other")
    with app.app_context():
        limited = tokens.create("team", Scope.READ, job_id_prefix="team")
    client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {limited}"
    for table in ("trials", "reports"):
        assert {row["job_id"] for row in rows(client, table)} == {"team-a"}
        assert client.get(f"/export/{table}?job_id=other").status_code == 404
    del client.environ_base["HTTP_AUTHORIZATION"]
    assert client.get("/export/trials").status_code == 401


def test_a_server_without_pyarrow_says_so_and_writes_csv(
    client: FlaskClient, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(calls, "one")

    def missing(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(files, "import_module", missing)
    answer = client.get("/export/trials?format=parquet")
    assert answer.status_code == 501
    assert "pip install 'lightning-bso[parquet]'" in answer.json["message"]
    assert "lightning-bso[parquet]" in client.get("/admin/export/?file=trials.parquet").text.replace("&#39;", "'")
    assert len(rows(client, "trials")) == 3


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_large_file_takes_little_memory(app: Flask, kind: str) -> None:
    row = dict.fromkeys(exports.TABLES["reports"].columns) | {"job_id": "one", "metric": 0.5}
    columns = exports.TABLES["reports"].columns
    sizes = []

    def parts(count: int) -> Iterator[list[dict[str, Any]]]:
        for number in range(count):
            yield [row | {"trial_number": number} for _ in range(1000)]

    for count in (40, 400):
        tracemalloc.start()
        if kind == "csv":
            pieces: Iterator[Any] = files.as_csv(
                list(columns), ([list(row.values()) for row in part] for part in parts(count))
            )
        else:
            pieces = files.as_parquet(columns, parts(count))
        for _ in pieces:
            pass
        sizes.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert sizes[1] < 1.5 * sizes[0]


def test_the_columns_of_trials_are_those_of_the_api() -> None:
    fields = [*TrialRecord.model_fields, *RegisteredJobSpec.model_fields]
    names = list(exports.TABLES["trials"].columns)
    assert sorted(names) == sorted(RENAMED.get(name, name) for name in fields)
    assert len(fields) == len(set(fields))
