"""The HTTP endpoints: parse the request, call a use case, answer.

No rule of the protocol lives here: see `runs`, `jobs` and `reading` in `backend.usecases`. The names of the
endpoint functions are the operation ids of the OpenAPI document, so they must not change. The document's links, which
lead from one call to the next, live in `links`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flask import Response, current_app, g, jsonify, make_response, request
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag
from pydantic import BaseModel, RootModel, ValidationError

from lightning_bso.wire import (
    AFTER_PATH,
    AUDIT_PATH,
    BATCH_SIZE_PATH,
    EXPORTED_REPORTS_PATH,
    EXPORTED_TRIALS_PATH,
    HEARTBEAT_PATH,
    JOBS_PATH,
    PROBE_PATH,
    READY_PATH,
    REPORT_PATH,
    SAVINGS_PATH,
    TRIALS_PATH,
    AfterRequest,
    AskAnswer,
    AskRequest,
    AuditPage,
    AuditQuery,
    EndAnswer,
    ErrorAnswer,
    ExportQuery,
    Fault,
    HeartbeatAnswer,
    HeartbeatRequest,
    JobBelief,
    JobPage,
    JobQuery,
    JobSavings,
    JobsQuery,
    JobSummary,
    PageQuery,
    ProbeRequest,
    RegisteredJobSpec,
    ReportAnswer,
    ReportRequest,
    Savings,
    SavingsQuery,
    TrialPage,
    TrialRequest,
)

from ..database import schema
from ..database.queries import JobFilter
from ..errors import DatabaseUnavailable, TokenLacksScope, UnknownJob, UnknownTrial
from ..usecases import audit, exports, jobs, reading, runs, savings
from ..usecases.audit import Actor
from ..usecases.tokens import Scope
from . import files, links, metrics
from .auth import authorize


def _errors(*statuses: int) -> dict[str | int, type[BaseModel] | dict[Any, Any] | None]:
    """Declare statuses whose body is an `ErrorAnswer`."""
    return dict.fromkeys(statuses, ErrorAnswer)


def _operation_id(*, name: str, path: str, method: str) -> str:
    return name


blueprint = APIBlueprint(
    "api",
    __name__,
    abp_security=[{"token": []}, {"password": []}],
    abp_responses=_errors(401, 403, 422, 503),
    operation_id_callback=_operation_id,
)
public_blueprint = APIBlueprint("public", __name__, abp_responses=_errors(422), operation_id_callback=_operation_id)
"""The calls that need no token."""
_RUNS = Tag(name="runs", description="Calls of a training, and changes of jobs.")
_READ = Tag(name="read", description="Read calls for users and scripts.")
_HEALTH = Tag(name="health", description="Calls for orchestration and monitoring.")


_SCOPES = {
    "list_jobs": Scope.READ,
    "describe": Scope.READ,
    "list_trials": Scope.READ,
    "tell_belief": Scope.READ,
    "tell_savings": Scope.READ,
    "tell_all_savings": Scope.READ,
    "export_trials": Scope.READ,
    "export_reports": Scope.READ,
    "expose_metrics": Scope.READ,
    "register": Scope.RUN,
    "ask": Scope.RUN,
    "ask_for_run": Scope.RUN,
    "report": Scope.RUN,
    "after": Scope.RUN,
    "heartbeat": Scope.RUN,
    "probe": Scope.RUN,
    "end": Scope.RUN,
    "reset": Scope.ADMIN,
    "delete": Scope.ADMIN,
    "list_audit": Scope.ADMIN,
}


@blueprint.before_request
def _authorize() -> None:
    """Check the access token before anything else in the request is read."""
    g.actor = authorize(_SCOPES[(request.endpoint or "").removeprefix("api.")])


def _by() -> Actor:
    """Return the caller of the current request."""
    actor: Actor = g.actor
    return actor


class Nothing(RootModel[None]):
    """The answer `null`."""


class EndOrNothing(RootModel[EndAnswer | None]):
    """The consequence of an end, or `null` for none."""


def _json(answer: BaseModel, status: int = 200) -> Response:
    response = make_response(answer.model_dump_json(), status)
    response.mimetype = "application/json"
    return response


def _null() -> Response:
    return jsonify(None)


def _lease_s() -> float:
    return float(current_app.config["LEASE_S"])


@contextmanager
def _unknown_is_400() -> Iterator[None]:
    """Answer 400 for an unknown job or trial, as Zeus' client expects."""
    try:
        yield
    except (UnknownJob, UnknownTrial) as error:
        error.status = 400
        raise


def validation_failed(error: ValidationError) -> Response:
    """Return the answer to an invalid request. It lists all faults, but no values from the request."""
    faults = [
        Fault(loc=list(fault["loc"]), msg=fault["msg"], type=fault["type"])
        for fault in error.errors(include_url=False, include_input=False, include_context=False)
    ]
    message = "; ".join(": ".join(filter(None, [".".join(map(str, fault.loc)), fault.msg])) for fault in faults)
    return _json(ErrorAnswer(message=message, detail=faults), 422)


@blueprint.post(
    JOBS_PATH, tags=[_RUNS], responses={200: RegisteredJobSpec, 201: RegisteredJobSpec, **_errors(409, 413)}
)
def register(body: RegisteredJobSpec) -> Response:
    """Register a job. 201: the job is new; 200: the same spec is already registered."""
    spec, new = jobs.register(body, by=_by())
    return _json(spec, 201 if new else 200)


@blueprint.get(BATCH_SIZE_PATH, tags=[_RUNS], responses={200: AskAnswer, **_errors(400, 409)})
def ask(query: JobQuery) -> Response:
    """Ask for the batch size of a new run. Every call is a new run. This is the call of Zeus' client."""
    with _unknown_is_400():
        return _json(runs.ask(query.job_id, None, by=_by(), lease_s=_lease_s()))


@blueprint.post(TRIALS_PATH, tags=[_RUNS], responses={200: AskAnswer, **_errors(400, 409, 413)})
def ask_for_run(body: AskRequest) -> Response:
    """Ask for the batch size of a named run. The same run always gets the same trial."""
    with _unknown_is_400():
        answer = runs.ask(
            body.job_id,
            body.run_id,
            by=_by(),
            lease_s=_lease_s(),
            host=body.host,
            resumes=body.resumes,
            process=body.process,
            takes_over=body.takes_over,
            stops=body.stops,
        )
        return _json(answer)


@blueprint.post(REPORT_PATH, tags=[_RUNS], responses={200: ReportAnswer, **_errors(400, 409, 413)})
def report(body: ReportRequest) -> Response:
    """Report the result of a validation. The answer says whether to continue training."""
    with _unknown_is_400():
        return _json(runs.report(body, by=_by(), lease_s=_lease_s()))


@blueprint.post(AFTER_PATH, tags=[_RUNS], responses={200: Nothing, **_errors(400, 409, 413)})
def after(body: AfterRequest) -> Response:
    """Report what a run has used since its verdict, because its training goes on."""
    with _unknown_is_400():
        runs.after(body, by=_by(), lease_s=_lease_s())
    return _null()


@blueprint.post(HEARTBEAT_PATH, tags=[_RUNS], responses={200: HeartbeatAnswer, **_errors(400, 413)})
def heartbeat(body: HeartbeatRequest) -> Response:
    """Renew the lease of a run between two reports."""
    with _unknown_is_400():
        return _json(runs.heartbeat(body, by=_by(), lease_s=_lease_s()))


@blueprint.post(PROBE_PATH, tags=[_RUNS], responses={200: Nothing, **_errors(400, 413)})
def probe(body: ProbeRequest) -> Response:
    """Report the result of a probe, which times a few steps with each batch size.

    Only the first probe since the last reset of a job counts.
    """
    with _unknown_is_400():
        runs.probe(body, by=_by(), lease_s=_lease_s())
    return _null()


@blueprint.patch(TRIALS_PATH, tags=[_RUNS], responses={200: EndOrNothing, **_errors(404, 413)})
def end(body: TrialRequest) -> Response:
    """End a trial that will not report again. The answer is null unless errors have ruled its batch size out."""
    answer = runs.end(body, by=_by(), lease_s=_lease_s())
    return _null() if answer is None else _json(answer)


@blueprint.delete(JOBS_PATH, tags=[_RUNS], responses={200: Nothing, **_errors(404)})
def delete(query: JobQuery) -> Response:
    """Delete a job with its trials and reports."""
    jobs.delete(query.job_id, by=_by())
    return _null()


@blueprint.get(JOBS_PATH, tags=[_READ], responses={200: JobPage})
def list_jobs(query: JobsQuery) -> Response:
    """List the jobs, newest first."""
    which = JobFilter(_by().job_id_prefix, query.contains, query.policy, query.gpu_model, query.paused)
    return _json(reading.list_jobs(which, query.offset, query.limit))


@blueprint.get(f"{JOBS_PATH}/<job_id:job_id>", tags=[_READ], responses={200: JobSummary, **_errors(404)})
def describe(path: JobQuery) -> Response:
    """Return the current state of a job."""
    return _json(reading.describe(path.job_id, _by()))


@blueprint.get(f"{JOBS_PATH}/<job_id:job_id>/trials", tags=[_READ], responses={200: TrialPage, **_errors(404)})
def list_trials(path: JobQuery, query: PageQuery) -> Response:
    """List a job's trials, by ascending number."""
    return _json(reading.list_trials(path.job_id, query.offset, query.limit, _by()))


@blueprint.get(f"{JOBS_PATH}/<job_id:job_id>/belief", tags=[_READ], responses={200: JobBelief, **_errors(404)})
def tell_belief(path: JobQuery) -> Response:
    """Return what a job's policy expects of each batch size, and the batch size that a run would get now."""
    return _json(reading.belief(path.job_id, _by()))


@blueprint.get(f"{JOBS_PATH}/<job_id:job_id>/savings", tags=[_READ], responses={200: JobSavings, **_errors(404)})
def tell_savings(path: JobQuery) -> Response:
    """Return what a job has spent, and what it saved compared with always using the default or the best batch size."""
    return _json(reading.savings(path.job_id, _by()))


@blueprint.get(SAVINGS_PATH, tags=[_READ], responses={200: Savings})
def tell_all_savings(query: SavingsQuery) -> Response:
    """Return what all jobs have spent and saved in a range of days, by the prefixes of their ids or by job."""
    return _json(savings.by_group(_by(), (query.since, query.until), query.group_by))


@blueprint.get(AUDIT_PATH, tags=[_READ], responses={200: AuditPage})
def list_audit(query: AuditQuery) -> Response:
    """List the audit log, newest first: which actor did what to which job, when, and from which address."""
    return _json(audit.page(_by(), query.job_id, query.offset, query.limit))


_FILE: dict[str, Any] = {
    "content": {
        mime_type: {"schema": {"type": "string"} | ({"format": "binary"} if mime_type == files.PARQUET else {})}
        for mime_type in files.MIME_TYPES.values()
    }
}


@blueprint.get(EXPORTED_TRIALS_PATH, tags=[_READ], responses={200: _FILE, **_errors(404, 501)})
def export_trials(query: ExportQuery) -> Response:
    """Return a file of all trials, each with its job's spec. The names of columns end in their units."""
    return files.exported("trials", query.format, exports.jobs_named(query.job_id, _by()), _by())


@blueprint.get(EXPORTED_REPORTS_PATH, tags=[_READ], responses={200: _FILE, **_errors(404, 501)})
def export_reports(query: ExportQuery) -> Response:
    """Return a file of all reports: the metric, the energy and the time of each validation, and the verdict on it."""
    return files.exported("reports", query.format, exports.jobs_named(query.job_id, _by()), _by())


@blueprint.post(f"{JOBS_PATH}/<job_id:job_id>/reset", tags=[_RUNS], responses={200: Nothing, **_errors(404)})
def reset(path: JobQuery) -> Response:
    """Start a new exploration of a job. The job keeps its history."""
    jobs.reset(path.job_id, by=_by())
    return _null()


class Health(BaseModel):
    """The health of the server."""

    status: str


@public_blueprint.get("/healthz", tags=[_HEALTH], responses={200: Health})
def healthz() -> Response:
    """Whether the process answers."""
    return _json(Health(status="alive"))


@public_blueprint.get(READY_PATH, tags=[_HEALTH], responses={200: Health, **_errors(503)})
def readyz() -> Response:
    """Whether the database answers, has this version's schema or a newer one, and takes writes."""
    if not schema.is_usable():
        raise DatabaseUnavailable
    schema.check_writable()
    return _json(Health(status="ready"))


@blueprint.get("/metrics", tags=[_HEALTH], responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}})
def expose_metrics() -> Response:
    """Return metrics for Prometheus, as text. They cover all jobs, so a token limited to some jobs is refused."""
    if _by().job_id_prefix is not None:
        raise TokenLacksScope("the metrics cover all jobs, but this token is limited to some; use a token for all jobs")
    response = make_response(metrics.expose(_lease_s()))
    response.mimetype = "text/plain"
    return response


links.add(blueprint.paths)
