"""Invalid requests: each gets a 4xx whose message names the field, and the database does not change."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from flask.testing import FlaskClient

from tests import specs
from tests.calls import Answer, Calls
from tests.databases import dump

REPORT = {
    "job_id": "train",
    "batch_size": 16,
    "trial_number": 1,
    "time": 2.0,
    "energy": 20.0,
    "metric": 0.5,
    "current_epoch": 2,
}
NOT_A_NUMBER = ["1", True, [], {}, "NaN"]
NOT_FINITE = [float("nan"), float("inf"), float("-inf")]
NOT_AN_ID = ["", 1, None, [], {}, True, "x" * 256, "x" * 10_000, "a\0b", "a\nb", "\x1b[31m", "\x7f", "\x85"]

BAD_FIELDS: dict[str, dict[str, list[Any]]] = {
    "/jobs": {
        "job_id": [value for value in NOT_AN_ID if value is not None] + ["another-prefix"],
        "job_id_prefix": NOT_AN_ID,
        "batch_sizes": [[], None, 8, "8", {}, [16, 16], [0, 16], [-8, 16], [16, 2**31], [*range(1, 1026)], [16, 8.5]],
        "default_batch_size": [12, 0, -16, None, "16", 16.5, True, 2**31],
        "eta_knob": [-0.1, 1.1, None, *NOT_A_NUMBER, *NOT_FINITE],
        "beta_knob": [0, -1, 1e31, *NOT_A_NUMBER, *NOT_FINITE],
        "target_metric": ["automatic", *NOT_A_NUMBER, *NOT_FINITE],
        "calibration_runs": [0, -1, 1.5, None, 101, *NOT_A_NUMBER, *NOT_FINITE],
        "target_tolerance": [-0.1, 1.1, None, *NOT_A_NUMBER, *NOT_FINITE],
        "higher_is_better_metric": [None, 1, 0, "true", []],
        "max_epochs": [0, -1, 1.5, None, 2**31, *NOT_A_NUMBER, *NOT_FINITE],
        "num_pruning_rounds": [-1, 0.5, None, 2**31, *NOT_A_NUMBER, *NOT_FINITE],
        "window_size": [-1, 0.5, None, 2**31, *NOT_A_NUMBER, *NOT_FINITE],
        "mab_prior_mean": [1e31, -1e31, None, *NOT_A_NUMBER, *NOT_FINITE],
        "mab_prior_precision": [-1e-9, 1e31, None, *NOT_A_NUMBER, *NOT_FINITE],
        "mab_num_explorations": [-1, 0.5, None, 2**31, *NOT_A_NUMBER, *NOT_FINITE],
        "mab_seed": [-1, 0.5, 2**63, *NOT_A_NUMBER, *NOT_FINITE],
        "max_power": [0, -1, 1e31, None, *NOT_A_NUMBER, *NOT_FINITE],
        "number_of_gpus": [0, -1, 0.5, None, 2**31, *NOT_A_NUMBER, *NOT_FINITE],
        "gpu_model": NOT_AN_ID,
        "policy": ["", "zeus2", None, 1],
    },
    "/trials": {"job_id": NOT_AN_ID, "run_id": ["", None, 1, "r" * 65, "a\0b", "a\tb"]},
    "/report": {
        "job_id": NOT_AN_ID,
        "batch_size": [0, -1, 1.5, None, 2**31, *NOT_A_NUMBER, *NOT_FINITE],
        "trial_number": [0, -1, 1.5, None, 2**31, *NOT_A_NUMBER, *NOT_FINITE],
        "time": [-1, -1e-300, 1e31, None, *NOT_A_NUMBER, *NOT_FINITE],
        "energy": [-1, -1e-300, 1e31, None, *NOT_A_NUMBER, *NOT_FINITE],
        "metric": [*NOT_A_NUMBER, *NOT_FINITE],
        "current_epoch": [-1, 1.5, None, 2**31, *NOT_A_NUMBER, *NOT_FINITE],
        "report_number": [0, -1, 1.5, 2**31, *NOT_A_NUMBER, *NOT_FINITE],
        "energy_source": ["", "steam", 1, []],
        "accumulate_grad_batches": [0, -1, 1.5, None, 2**31, *NOT_A_NUMBER, *NOT_FINITE],
    },
    "/trials/after": {
        "job_id": NOT_AN_ID,
        "trial_number": [0, -1, 1.5, None, 2**31, *NOT_A_NUMBER],
        "time": [-1, -1e-300, 1e31, None, *NOT_A_NUMBER, *NOT_FINITE],
        "energy": [-1, -1e-300, 1e31, None, *NOT_A_NUMBER, *NOT_FINITE],
        "metric": [*NOT_A_NUMBER, *NOT_FINITE],
    },
    "/trials/heartbeat": {
        "job_id": NOT_AN_ID,
        "trial_number": [0, -1, 1.5, None, 2**31, *NOT_A_NUMBER],
        "max_device_batch_size": [0, -1, 1.5, 2**31, *NOT_A_NUMBER],
    },
}
PATCHED: dict[str, list[Any]] = {
    "job_id": NOT_AN_ID,
    "batch_size": [0, -1, 1.5, None, 2**31, *NOT_A_NUMBER],
    "trial_number": [0, -1, 1.5, None, 2**31, *NOT_A_NUMBER],
    "reason": ["x" * 501, 1, []],
    "max_device_batch_size": [0, -1, 1.5, 2**31, *NOT_A_NUMBER],
}
GOOD_BODIES: dict[str, dict[str, Any]] = {
    "/jobs": specs.job(),
    "/trials": {"job_id": "train", "run_id": "run-2"},
    "/report": REPORT,
    "/trials/after": {"job_id": "train", "trial_number": 1, "time": 1.0, "energy": 1.0},
    "/trials/heartbeat": {"job_id": "train", "trial_number": 1},
}
CALLS_WITH_A_BODY = [("POST", path) for path in GOOD_BODIES] + [("PATCH", "/trials")]
BAD_BODIES: dict[str, str | bytes] = {
    "nothing": "",
    "spaces": "  \n",
    "null": "null",
    "a list": "[]",
    "a number": "1",
    "a string": '"train"',
    "malformed": '{"job_id": "train"',
    "trailing comma": '{"job_id": "train",}',
    "single quotes": "{'job_id': 'train'}",
    "form data": "job_id=train&run_id=run",
    "deeply nested lists": "[" * 30_000 + "]" * 30_000,
    "deeply nested objects": '{"a":' * 10_000 + "1" + "}" * 10_000,
    "nested in an unknown field": '{"job_id": "train", "x": ' + "[" * 30_000 + "]" * 30_000 + "}",
    "invalid UTF-8": b'{"job_id": "\xff\xfe"}',
    "UTF-16": '{"job_id": "train"}'.encode("utf-16"),
    "a surrogate in UTF-8": b'{"job_id": "\xed\xa0\x80"}',
    "a lone surrogate": '{"job_id": "\\ud800"}',
    "an integer of 5,000 digits": '{"trial_number": ' + "9" * 5_000 + "}",
    "a negative integer of 5,000 digits": '{"trial_number": -' + "9" * 5_000 + "}",
}


@pytest.fixture
def unchanged(calls: Calls, database_url: str) -> Iterator[Calls]:
    """Calls to a server with a job and a running trial. The calls must not change anything."""
    calls.register()
    calls.must(calls.report(calls.trial(run_id="run")))
    before = dump(database_url)
    yield calls
    assert dump(database_url) == before


def assert_refused(answer: Answer, field: str) -> None:
    assert answer.status == 422, answer.text
    assert field in answer.message
    assert answer.body["detail"]
    for fault in answer.body["detail"]:
        assert set(fault) == {"loc", "msg", "type"}


@pytest.mark.parametrize(("path", "field"), [(path, field) for path in BAD_FIELDS for field in BAD_FIELDS[path]])
def test_a_wrong_value_is_refused_by_the_name_of_its_field(unchanged: Calls, path: str, field: str) -> None:
    for value in BAD_FIELDS[path][field]:
        assert_refused(unchanged("POST", path, GOOD_BODIES[path] | {field: value}), field)


@pytest.mark.parametrize("field", PATCHED)
def test_a_wrong_value_in_ending_a_trial_is_refused_by_the_name_of_its_field(unchanged: Calls, field: str) -> None:
    for value in PATCHED[field]:
        assert_refused(unchanged("PATCH", "/trials", REPORT | {field: value}), field)


@pytest.mark.parametrize("path", GOOD_BODIES)
def test_a_missing_field_is_named(unchanged: Calls, path: str) -> None:
    optional = {"job_id", *specs.job()} - {"job_id_prefix", "batch_sizes", "default_batch_size", "max_power"}
    optional = (optional - {"number_of_gpus", "gpu_model"}) if path == "/jobs" else set()
    for field in GOOD_BODIES[path].keys() - optional:
        rest = {name: value for name, value in GOOD_BODIES[path].items() if name != field}
        assert_refused(unchanged("POST", path, rest), field)


def test_every_fault_is_named_at_once(unchanged: Calls) -> None:
    answer = unchanged("POST", "/report", REPORT | {"time": -1, "energy": "1", "current_epoch": None})
    assert {tuple(fault["loc"]) for fault in answer.body["detail"]} == {("time",), ("energy",), ("current_epoch",)}
    for field in ("time", "energy", "current_epoch"):
        assert field in answer.message


def test_a_refusal_does_not_repeat_what_was_sent(unchanged: Calls) -> None:
    assert "s3cret" not in unchanged("POST", "/report", REPORT | {"time": "s3cret"}).text


@pytest.mark.parametrize("fault", BAD_BODIES)
def test_a_body_that_is_not_an_object_of_json_is_refused(unchanged: Calls, fault: str) -> None:
    for method, path in CALLS_WITH_A_BODY:
        answer = unchanged.send(method, path, BAD_BODIES[fault])
        assert answer.status == 422, answer.text
        assert answer.message


def test_repeated_batch_sizes_are_named(unchanged: Calls) -> None:
    answer = unchanged("POST", "/jobs", specs.job(batch_sizes=[16, 8, 16, 32, 8]))
    assert_refused(answer, "batch_sizes")
    assert "8, 16" in answer.message


@pytest.mark.parametrize(
    "content_type", ["application/json", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "a"]
)
def test_a_body_is_json_whatever_its_content_type_says(client: FlaskClient, calls: Calls, content_type: str) -> None:
    calls.register()
    for method, path in (("POST", "/trials"), ("POST", "/report"), ("PATCH", "/trials")):
        body = json.dumps(REPORT | {"run_id": "run"})
        answer = client.open(path, method=method, data=body, content_type=content_type)
        assert answer.status_code == 200, answer.text


def test_a_body_over_64_kib_is_413(unchanged: Calls) -> None:
    for method, path in CALLS_WITH_A_BODY:
        answer = unchanged.send(method, path, json.dumps({"job_id": "train", "x": "a" * 64 * 1024}))
        assert answer.status == 413
        assert "65536" in answer.message


def test_a_body_of_just_64_kib_is_read(calls: Calls) -> None:
    calls.register()
    body = json.dumps({"job_id": "train", "run_id": "run", "x": ""})
    filled = body.replace('"x": ""', f'"x": "{"a" * (64 * 1024 - len(body))}"')
    assert len(filled) == 64 * 1024
    assert calls.send("POST", "/trials", filled).status == 200


@pytest.mark.parametrize("query", ["", "job_id=", "job_id=" + "x" * 10_000, "job_id=a%00b", "job_id=a%0Ab", "id=train"])
def test_a_wrong_id_in_a_query_is_refused(unchanged: Calls, query: str) -> None:
    assert_refused(unchanged("GET", f"/jobs/batch_size?{query}"), "job_id")
    assert_refused(unchanged("DELETE", f"/jobs?{query}"), "job_id")


@pytest.mark.parametrize("job_id", ["%00", "a%09b", "x" * 256, "x" * 10_000])
def test_a_wrong_id_in_a_path_is_refused(unchanged: Calls, job_id: str) -> None:
    for method, path in (("GET", ""), ("GET", "/trials"), ("POST", "/reset")):
        assert_refused(unchanged(method, f"/jobs/{job_id}{path}"), "job_id")


@pytest.mark.parametrize("escaped", ["%ED%A0%80", "%FF", "%C3%28", "%", "%zz"])
def test_an_id_that_is_not_utf_8_is_just_unknown(unchanged: Calls, escaped: str) -> None:
    assert unchanged("GET", f"/jobs/batch_size?job_id={escaped}").status == 400
    assert unchanged("GET", f"/jobs/{escaped}").status == 404
    assert unchanged("DELETE", f"/jobs?job_id={escaped}").status == 404


def test_unknown_paths_and_methods_are_answered_in_json(unchanged: Calls) -> None:
    assert unchanged("GET", "/nowhere").status == 404
    assert unchanged("GET", "/nowhere").message
    assert unchanged("PUT", "/report").status == 405
    assert unchanged("PUT", "/report").message
    assert unchanged("GET", "/report").status == 405


def test_a_method_that_a_path_does_not_take_is_answered_with_those_that_it_takes(client: FlaskClient) -> None:
    assert set(client.put("/report").headers["Allow"].split(", ")) == {"OPTIONS", "POST"}
