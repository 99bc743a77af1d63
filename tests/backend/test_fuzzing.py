"""Requests that the OpenAPI document does not describe, and jobs of extreme numbers: none is a fault of the server.

`test_document` sends the requests that the document describes.
"""

import json
from typing import Any
from urllib.parse import quote

from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests import specs
from tests.calls import Calls

POSTED = ["/jobs", "/trials", "/report", "/trials/after", "/trials/heartbeat", "/jobs/train/reset"]
FIELDS = [
    *specs.job(),
    *("higher_is_better_metric", "window_size", "mab_prior_mean", "mab_prior_precision", "mab_num_explorations"),
    *("run_id", "batch_size", "trial_number", "time", "energy", "metric", "current_epoch", "report_number"),
    *("energy_source", "reason", "policy"),
]

fuzzing = settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
numbers = st.one_of(
    st.integers(),
    st.floats(),
    st.sampled_from([0, 1, 16, -1, 2**31 - 1, 2**31, 2**63 - 1, 2**63, 2**64, 1e30, 1e31, 1e308, 5e-324, -0.0]),
)
texts = st.one_of(st.text(max_size=20), st.sampled_from(["train", "zeus", "nvml", "run", "A40", ""]))
scalars = st.one_of(st.none(), st.booleans(), numbers, texts)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(texts, inner, max_size=5), max_leaves=10
)


def report(**changes: Any) -> dict[str, Any]:
    totals = {"time": 1.0, "energy": 1.0, "metric": 0.5, "current_epoch": 1}
    return {"job_id": "train", "batch_size": 16, "trial_number": 1, "run_id": "run"} | totals | changes


def assert_no_fault_of_the_server(client: FlaskClient, method: str, path: str, body: str | bytes | None) -> None:
    answer = client.open(path, method=method, data=body)
    assert answer.status_code < 500, answer.text
    if answer.status_code >= 400:
        assert json.loads(answer.text)["message"]


@given(path=st.sampled_from(POSTED), changes=st.dictionaries(st.sampled_from(FIELDS), values, min_size=1, max_size=3))
@fuzzing
def test_a_nearly_right_request_is_answered(
    calls: Calls, client: FlaskClient, path: str, changes: dict[str, Any]
) -> None:
    calls.register(num_pruning_rounds=0)
    calls.ask(run_id="run")
    for body in (report(**changes), specs.job(**changes)):
        assert_no_fault_of_the_server(client, "POST", path, json.dumps(body))
    assert_no_fault_of_the_server(client, "PATCH", "/trials", json.dumps(report(**changes)))


@given(path=st.sampled_from(POSTED), body=st.binary(max_size=200))
@fuzzing
def test_any_bytes_are_answered(client: FlaskClient, path: str, body: bytes) -> None:
    assert_no_fault_of_the_server(client, "POST", path, body)


@given(
    extreme=st.fixed_dictionaries(
        {
            "batch_sizes": st.lists(st.integers(1, 2**31 - 1), min_size=1, max_size=4, unique=True),
            "eta_knob": st.floats(0, 1),
            "beta_knob": st.none() | st.floats(1e-300, 1e30),
            "target_metric": st.floats(allow_nan=False, allow_infinity=False),
            "num_pruning_rounds": st.integers(0, 2**31 - 1),
            "window_size": st.integers(0, 2**31 - 1),
            "mab_prior_mean": st.floats(-1e30, 1e30),
            "mab_prior_precision": st.just(0.0) | st.floats(1e-60, 1e30),
            "mab_num_explorations": st.integers(0, 2**31 - 1),
            "mab_seed": st.none() | st.integers(0, 2**63 - 1),
            "max_power": st.floats(5e-324, 1e30),
        }
    ),
    reports=st.lists(
        st.tuples(st.floats(0, 1e30), st.floats(0, 1e30), st.none() | st.floats(allow_nan=False, allow_infinity=False)),
        max_size=6,
    ),
)
@fuzzing
def test_a_job_of_extreme_numbers_is_carried_through(
    calls: Calls, extreme: dict[str, Any], reports: list[tuple[float, float, float | None]]
) -> None:
    default = extreme["batch_sizes"][0]
    job_id = calls.must(calls.register(**extreme, job_id=None, default_batch_size=default))["job_id"]
    for time, energy, metric in reports:
        trial = calls.ask(job_id)
        assert trial.status in {200, 409}, trial.text
        if trial.status == 409:
            break
        answer = calls.report(trial.body, time=time, energy=energy, metric=metric, current_epoch=10)
        assert answer.status == 200, answer.text
    assert calls.describe(job_id)["trials"] <= len(reports)
    assert calls("GET", "/jobs").status == 200


@given(job_id=st.text(min_size=1, max_size=260))
@fuzzing
def test_any_id_in_a_url_is_answered(client: FlaskClient, job_id: str) -> None:
    escaped = quote(job_id, safe="", errors="surrogatepass")
    for method, path in (
        *(("GET", f"/jobs/batch_size?job_id={escaped}"), ("GET", f"/jobs/{escaped}")),
        *(("GET", f"/jobs/{escaped}/trials"), ("DELETE", f"/jobs?job_id={escaped}")),
        *(("POST", f"/jobs/{escaped}/reset"), ("GET", f"/jobs?offset={escaped}")),
    ):
        assert_no_fault_of_the_server(client, method, path, None)
