"""The OpenAPI document says what the server does: calls at every limit, and random ones that follow its links.

Each answer has a status, a content type and a body that the document declares. None is a fault of the server. What the
document forbids is refused with a message. What it allows is refused only by a rule that JSON Schema cannot express.
"""

from collections import Counter
from collections.abc import Iterator

import pytest
import schemathesis
from flask import Flask
from flask.testing import FlaskClient
from hypothesis.stateful import run_state_machine_as_test
from schemathesis import BaseSchema, Case, CheckContext, GenerationMode, HookContext, Response
from schemathesis.core.result import Ok
from schemathesis.generation.stateful import APIStateMachine

from backend.usecases import tokens
from backend.usecases.tokens import Scope
from lightning_bso.wire import DOCUMENT_PATH
from tests.fuzzing import settings_for

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

RULES = {
    *("default_not_listed", "job_id_prefix", "prefix_too_long", "prior_precision_too_small", "reserved_job_id"),
    *("too_many_batch_sizes", "warm_start_policy", "warm_start_target", "epoch_time", "fits", "out_of_memory"),
    "invalid_field",
}
"""Types of the faults that the document cannot forbid: they concern several fields, or what is stored."""
LEFT_OUT = [
    "allow_header_conformance",  # a job's id may contain slashes, so two calls share the URL /jobs/x/reset
    "ignored_auth",  # `test_access` tests it
    "positive_data_acceptance",  # `is_refused_by_a_rule` is stricter
]
SCENARIOS, MANY_SCENARIOS = 8, 150
STEPS = 40
MANY_CALLS = 2_000


@pytest.fixture
def document(app: Flask) -> BaseSchema:
    """The server's document, whose calls go to the server."""
    app.config["INSECURE_OPEN"] = True  # Schemathesis' calls do not say that they come from this machine
    document = schemathesis.openapi.from_wsgi(DOCUMENT_PATH, app)
    document.config.checks.update(excluded_check_names=LEFT_OUT)
    document.config.generation.update(with_security_parameters=False)
    document.config.phases.stateful.inference.algorithms = []  # only the links that the document declares
    document.hook(map_case)
    return document


def map_case(_context: HookContext, case: Case) -> Case:
    """Let most random jobs keep the rules between their fields."""
    if case.operation.label == "POST /jobs" and case.meta is not None and case.meta.generation.mode.is_positive:
        case.body["default_batch_size"] = case.body["batch_sizes"][0]
        if case.body.get("job_id") is not None:
            case.body["job_id_prefix"] = case.body["job_id"][0]
    return case


def is_refused_by_a_rule(_context: CheckContext, response: Response, case: Case) -> None:
    """Check that a refusal has a message, and that what the document allows is refused only by one of the rules."""
    if response.status_code >= 400:
        assert response.json()["message"]
    if response.status_code == 422 and (case.meta is None or case.meta.generation.mode.is_positive):
        assert {fault["type"] for fault in response.json()["detail"]} <= RULES, response.json()


def cases_at_limits(document: BaseSchema) -> Iterator[Case]:
    """Return requests with each field at, just within and just beyond its limits, of another type, and missing."""
    for operation in document.get_all_operations():
        assert isinstance(operation, Ok)
        yield from document.iter_coverage_cases(
            operation.ok(), generation_modes=list(GenerationMode), generation_config=document.config.generation
        )


def test_requests_at_the_limits_of_each_field_are_answered_as_documented(document: BaseSchema) -> None:
    statuses = Counter(
        case.call_and_validate(additional_checks=[is_refused_by_a_rule]).status_code
        for case in cases_at_limits(document)
    )
    assert statuses.total() > 1000
    assert statuses.keys() >= {200, 201, 400, 404, 422}


@pytest.mark.parametrize(("scope", "status"), [(None, 401), (Scope.READ, 403)])
def test_refused_tokens_are_answered_as_documented(
    app: Flask, document: BaseSchema, scope: Scope | None, status: int
) -> None:
    with app.app_context():
        token = tokens.create("reader", Scope.READ)
    headers = {} if scope is None else {"Authorization": f"Bearer {token}"}
    calls = {case.operation.label: case for case in cases_at_limits(document)}
    answered = {label for label, case in calls.items() if case.call_and_validate(headers=headers).status_code == status}
    assert {"POST /jobs", "POST /report", "DELETE /jobs", "GET /audit"} <= answered


def test_calls_that_follow_the_links_are_answered_as_documented(
    client: FlaskClient, document: BaseSchema, request: pytest.FixtureRequest
) -> None:
    answers: Counter[tuple[str, int]] = Counter()
    linked: type[APIStateMachine] = document.as_state_machine()

    class Calls(linked):  # type: ignore[misc, valid-type]
        def setup(self) -> None:
            for job in client.get("/jobs?limit=1000").json["jobs"]:
                client.delete("/jobs", query_string={"job_id": job["job_id"]})

        def after_call(self, response: Response, case: Case) -> None:
            answers[case.operation.label, response.status_code] += 1
            super().after_call(response, case)

        def validate_response(self, response: Response, case: Case, **options: object) -> None:
            super().validate_response(response, case, additional_checks=[is_refused_by_a_rule], **options)

    run_state_machine_as_test(Calls, settings=settings_for(request, SCENARIOS, MANY_SCENARIOS, STEPS))
    print(answers.total(), answers)
    assert answers["POST /jobs", 201]
    assert answers["POST /trials", 200]
    if request.config.getoption("many_examples"):
        assert answers["POST /report", 200]
        assert answers.total() >= MANY_CALLS
