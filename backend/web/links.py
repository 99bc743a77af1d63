"""The OpenAPI links: which call follows which, and from where in its request or answer the next one takes its values.

Only the document changes by them, not the calls. Nothing else of the document lives here: see `api`.
"""

from flask_openapi3.models.link import Link
from flask_openapi3.models.path_item import PathItem
from flask_openapi3.models.reference import Reference

Links = dict[str, Link | Reference]

_ANSWER, _REQUEST = "$response.body#/", "$request.body#/"


def add(paths: dict[str, PathItem]) -> None:
    """Add the links to the operations of a document."""
    for path in paths.values():
        for operation in (path.get, path.post, path.patch, path.delete):
            if operation is not None and operation.responses is not None:
                for status, links in _LINKS.get(operation.operationId or "", {}).items():
                    operation.responses[status].links = links


def _of_job(source: str, *names: str) -> Links:
    """Link to calls that name a job in their URL."""
    return {name: Link(operationId=name, parameters={"job_id": f"{source}job_id"}) for name in names}


def _of_run(source: str, **run_id: str) -> Links:
    """Link to the calls of a run, which name its trial in their body."""
    body = {name: source + name for name in ("job_id", "trial_number", "batch_size")} | run_id
    return {name: Link(operationId=name, requestBody=body) for name in ("report", "heartbeat", "after", "probe", "end")}


def _to_ask(**run_id: str) -> Links:
    """Link to the ask of a named run, whose body names the job."""
    return {"ask_for_run": Link(operationId="ask_for_run", requestBody={"job_id": f"{_ANSWER}job_id"} | run_id)}


_READS = ("describe", "list_trials", "tell_belief", "tell_savings")
_REGISTERED = _to_ask() | _of_job(_ANSWER, "ask", *_READS, "reset", "delete")
_SAME_RUN = {"run_id": f"{_REQUEST}run_id"}
_LINKS: dict[str, dict[str, Links]] = {
    "register": {"200": _REGISTERED, "201": _REGISTERED},
    "ask": {"200": _of_run(_ANSWER) | _of_job(_ANSWER, *_READS)},
    "ask_for_run": {"200": _of_run(_ANSWER, **_SAME_RUN) | _to_ask(**_SAME_RUN) | _of_job(_ANSWER, *_READS)},
    "report": {"200": _of_run(_REQUEST)},
}
