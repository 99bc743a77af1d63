"""The protocol's calls as methods, through Flask's test client or over HTTP."""

import json
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPConnection
from typing import Any
from urllib.parse import quote, urlsplit

from flask.testing import FlaskClient

from tests import specs

TIMEOUT_S = 60


@dataclass(frozen=True)
class Answer:
    """The answer to a call."""

    status: int
    text: str

    @property
    def body(self) -> Any:
        """The answer's JSON."""
        return json.loads(self.text)

    @property
    def message(self) -> str:
        """The message of an error."""
        return str(self.body["message"])


class Refused(AssertionError):
    """An answer outside 2xx where 2xx was expected."""


@dataclass(frozen=True)
class Calls:
    """Sends requests. Bodies have no Content-Type, like those of Zeus' client."""

    send: Callable[[str, str, str | bytes | None], Answer]

    @classmethod
    def through_test_client(cls, client: FlaskClient) -> "Calls":
        """Return calls to an application in this process."""

        def send(method: str, path: str, body: str | bytes | None) -> Answer:
            response = client.open(path, method=method, data=body)
            return Answer(response.status_code, response.text)

        return cls(send)

    @classmethod
    def over_http(cls, url: str) -> "Calls":
        """Return calls to a server process. Each call opens its own connection, so threads may share the object."""
        host = urlsplit(url).netloc

        def send(method: str, path: str, body: str | bytes | None) -> Answer:
            with closing(HTTPConnection(host, timeout=TIMEOUT_S)) as connection:
                connection.request(method, path, body.encode() if isinstance(body, str) else body)
                response = connection.getresponse()
                return Answer(response.status, response.read().decode())

        return cls(send)

    def __call__(self, method: str, path: str, body: Any = None) -> Answer:
        """Send any request. The body is sent as JSON."""
        return self.send(method, path, None if body is None else json.dumps(body))

    def register(self, **changes: Any) -> Answer:
        """Register `specs.job` with changes."""
        return self("POST", "/jobs", specs.job(**changes))

    def ask(self, job_id: str = "train", run_id: str | None = None, **changes: Any) -> Answer:
        """Ask for a batch size: with `run_id` as a named run, else by the call of Zeus' client."""
        if run_id is None:
            return self("GET", f"/jobs/batch_size?job_id={quote(job_id, safe='')}")
        return self("POST", "/trials", {"job_id": job_id, "run_id": run_id} | changes)

    def trial(self, job_id: str = "train", run_id: str | None = None, **changes: Any) -> dict[str, Any]:
        """Ask for a batch size, which must succeed. Returns the trial."""
        return self.must(self.ask(job_id, run_id, **changes))

    def report(self, trial: dict[str, Any], **changes: Any) -> Answer:
        """Report on a trial. Default: one epoch at a cost of 10 J that has not reached the target."""
        totals = {"time": 1.0, "energy": 10.0, "metric": 0.0, "current_epoch": 1}
        return self("POST", "/report", _key(trial) | totals | changes)

    def converge(self, trial: dict[str, Any], energy: float = 10.0) -> dict[str, Any]:
        """End a trial as converged."""
        verdict = self.must(self.report(trial, energy=energy, metric=1.0))
        assert verdict["converged"], verdict
        return verdict

    def diverge(self, trial: dict[str, Any], energy: float = 10.0) -> dict[str, Any]:
        """End a trial as not converged."""
        verdict = self.must(self.report(trial, energy=energy, metric=None))
        assert verdict["stop_train"], verdict
        assert not verdict["converged"], verdict
        return verdict

    def end(self, trial: dict[str, Any], **changes: Any) -> Answer:
        """End a trial without a verdict."""
        return self("PATCH", "/trials", _key(trial) | changes)

    def heartbeat(self, trial: dict[str, Any], **changes: Any) -> Answer:
        """Renew the lease of a trial."""
        named = {"job_id": trial["job_id"], "trial_number": trial["trial_number"]}
        return self("POST", "/trials/heartbeat", named | changes)

    def reset(self, job_id: str = "train") -> Answer:
        """Start a new exploration of a job."""
        return self("POST", f"/jobs/{quote(job_id, safe='')}/reset")

    def delete(self, job_id: str = "train") -> Answer:
        """Delete a job."""
        return self("DELETE", f"/jobs?job_id={quote(job_id, safe='')}")

    def describe(self, job_id: str = "train") -> dict[str, Any]:
        """Return the current state of a job."""
        return self.must(self("GET", f"/jobs/{quote(job_id, safe='')}"))

    def records(self, job_id: str = "train") -> list[dict[str, Any]]:
        """Return the first 1000 stored trials of a job."""
        page = self.must(self("GET", f"/jobs/{quote(job_id, safe='')}/trials?limit=1000"))
        return list(page["trials"])

    def record(self, trial: dict[str, Any]) -> dict[str, Any]:
        """Return a trial as it is stored."""
        records = self.records(trial["job_id"])
        return next(record for record in records if record["trial_number"] == trial["trial_number"])

    @staticmethod
    def must(answer: Answer) -> Any:
        """Return the body of an answer, which must be a 2xx."""
        if not 200 <= answer.status < 300:
            raise Refused(f"{answer.status}: {answer.text}")
        return answer.body


def _key(trial: dict[str, Any]) -> dict[str, Any]:
    return {name: trial[name] for name in ("job_id", "batch_size", "trial_number")}
