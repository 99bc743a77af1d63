"""The protocol's calls as one line each, through Flask's test client or over HTTP."""

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
    """What came back."""

    status: int
    text: str

    @property
    def body(self) -> Any:
        """The answer's JSON."""
        return json.loads(self.text)

    @property
    def message(self) -> str:
        """What an error says."""
        return str(self.body["message"])


class Refused(AssertionError):
    """An answer that is not the expected 2xx."""


@dataclass(frozen=True)
class Calls:
    """Sends requests; bodies go without a Content-Type, as Zeus' client sends them."""

    send: Callable[[str, str, str | bytes | None], Answer]

    @classmethod
    def through_test_client(cls, client: FlaskClient) -> "Calls":
        """Call an application of this process."""

        def send(method: str, path: str, body: str | bytes | None) -> Answer:
            response = client.open(path, method=method, data=body)
            return Answer(response.status_code, response.text)

        return cls(send)

    @classmethod
    def over_http(cls, url: str) -> "Calls":
        """Call a server process; every call is a connection of its own, so threads may share this."""
        host = urlsplit(url).netloc

        def send(method: str, path: str, body: str | bytes | None) -> Answer:
            with closing(HTTPConnection(host, timeout=TIMEOUT_S)) as connection:
                connection.request(method, path, body.encode() if isinstance(body, str) else body)
                response = connection.getresponse()
                return Answer(response.status, response.read().decode())

        return cls(send)

    def __call__(self, method: str, path: str, body: Any = None) -> Answer:
        """Any request; a body is sent as JSON."""
        return self.send(method, path, None if body is None else json.dumps(body))

    def register(self, **changes: Any) -> Answer:
        """Register `specs.job`, changed."""
        return self("POST", "/jobs", specs.job(**changes))

    def ask(self, job_id: str = "train", run_id: str | None = None, **changes: Any) -> Answer:
        """Ask for a batch size: Zeus' call, or that of a named run."""
        if run_id is None:
            return self("GET", f"/jobs/batch_size?job_id={quote(job_id, safe='')}")
        return self("POST", "/trials", {"job_id": job_id, "run_id": run_id} | changes)

    def trial(self, job_id: str = "train", run_id: str | None = None, **changes: Any) -> dict[str, Any]:
        """A new trial, which must be given."""
        return self.must(self.ask(job_id, run_id, **changes))

    def report(self, trial: dict[str, Any], **changes: Any) -> Answer:
        """Report on a trial: by default one epoch at a cost of 10 that has not reached the target."""
        totals = {"time": 1.0, "energy": 10.0, "metric": 0.0, "current_epoch": 1}
        return self("POST", "/report", _named(trial) | totals | changes)

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
        """End a trial without a result."""
        return self("PATCH", "/trials", _named(trial) | changes)

    def heartbeat(self, trial: dict[str, Any]) -> Answer:
        """Say that a trial is alive."""
        return self("POST", "/trials/heartbeat", {"job_id": trial["job_id"], "trial_number": trial["trial_number"]})

    def reset(self, job_id: str = "train") -> Answer:
        """Begin a job anew."""
        return self("POST", f"/jobs/{quote(job_id, safe='')}/reset")

    def delete(self, job_id: str = "train") -> Answer:
        """Delete a job."""
        return self("DELETE", f"/jobs?job_id={quote(job_id, safe='')}")

    def describe(self, job_id: str = "train") -> dict[str, Any]:
        """A job as it stands."""
        return self.must(self("GET", f"/jobs/{quote(job_id, safe='')}"))

    def records(self, job_id: str = "train") -> list[dict[str, Any]]:
        """The first thousand trials of a job as they are stored."""
        page = self.must(self("GET", f"/jobs/{quote(job_id, safe='')}/trials?limit=1000"))
        return list(page["trials"])

    def record(self, trial: dict[str, Any]) -> dict[str, Any]:
        """One trial as it is stored."""
        records = self.records(trial["job_id"])
        return next(record for record in records if record["trial_number"] == trial["trial_number"])

    @staticmethod
    def must(answer: Answer) -> Any:
        """The body of an answer that must be a 2xx."""
        if not 200 <= answer.status < 300:
            raise Refused(f"{answer.status}: {answer.text}")
        return answer.body


def _named(trial: dict[str, Any]) -> dict[str, Any]:
    return {name: trial[name] for name in ("job_id", "batch_size", "trial_number")}
