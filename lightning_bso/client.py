"""The calls of the protocol over HTTP: one session, timeouts, retries, a token. No state of a run is here.

Every call may be repeated without harm (the server knows runs and reports by their keys), so each is
retried when no answer came.
"""

from typing import TypeVar
from urllib.parse import quote, urlsplit

import requests
from pydantic import ValidationError
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from urllib3.util import Retry

from lightning_bso.errors import ServerRefused, ServerUnreachable
from lightning_bso.wire import (
    HEARTBEAT_PATH,
    JOBS_PATH,
    MAX_PAGE,
    REPORT_PATH,
    TRIALS_PATH,
    AskAnswer,
    AskRequest,
    ErrorAnswer,
    HeartbeatAnswer,
    HeartbeatRequest,
    JobPage,
    JobSummary,
    PageQuery,
    RegisteredJobSpec,
    ReportAnswer,
    ReportRequest,
    TrialPage,
    TrialRequest,
    Wire,
)

CONNECT_TIMEOUT_S = 3.0
READ_TIMEOUT_S = 10.0

# Before and after training there is time to wait for a server that is being restarted: about 8 s.
_PATIENT = Retry(
    total=5,
    backoff_factor=0.25,
    backoff_jitter=0.25,
    status_forcelist=(502, 503, 504),
    allowed_methods=None,  # all of them, POST and PATCH too
    raise_on_status=False,
)
# While a training waits, one more attempt (a kept connection may just have been closed); the next report
# brings along what this one could not.
_BRISK = _PATIENT.new(total=1, backoff_factor=0.1, backoff_jitter=0.1)

Answer = TypeVar("Answer", bound=Wire)


class _Bearer(AuthBase):
    """Sends a token; as `auth` and not as a header, which a .netrc would override."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


class BsoClient:
    """Talks to one server. Not for use by several threads at once.

    Args:
        server_url: where the server is, such as `http://bso.example:8000`; a path in it is kept.
        token: sent as `Authorization: Bearer …` if given.

    Raises:
        ValueError: `server_url` is no http(s) address.
    """

    def __init__(self, server_url: str, token: str | None = None) -> None:
        parts = urlsplit(server_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"server_url {server_url!r} is no address; it looks like http://host:8000")
        self._url = server_url.rstrip("/")
        self._shown_url = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
        self._session = requests.Session()
        if token is not None:
            self._session.auth = _Bearer(token)
        self._session.mount(self._url, HTTPAdapter(max_retries=_PATIENT))
        for path in (REPORT_PATH, HEARTBEAT_PATH):
            self._session.mount(self._url + path, HTTPAdapter(max_retries=_BRISK))

    def register(self, spec: RegisteredJobSpec) -> RegisteredJobSpec:
        """Register a job; the answer has its `job_id`. Registering the same again changes nothing.

        Raises:
            ServerRefused: 409, the id stands for another spec; 422, the spec is not valid.
            ServerUnreachable: no answer.
        """
        return self._call("POST", JOBS_PATH, RegisteredJobSpec, body=spec)

    def ask(self, job_id: str, run_id: str) -> AskAnswer:
        """The batch size for a run; the same run always gets the same trial.

        Raises:
            ServerRefused: 400, no such job; 409, no batch size is left to give.
            ServerUnreachable: no answer.
        """
        return self._call("POST", TRIALS_PATH, AskAnswer, body=AskRequest(job_id=job_id, run_id=run_id))

    def report(self, request: ReportRequest) -> ReportAnswer:
        """Report what a validation found. Takes at most twice the read timeout.

        Raises:
            ServerRefused: 400, no such job or trial; 409, it contradicts an earlier report.
            ServerUnreachable: no answer; send the same report again later.
        """
        return self._call("POST", REPORT_PATH, ReportAnswer, body=request)

    def heartbeat(self, job_id: str, trial_number: int) -> HeartbeatAnswer:
        """Say that a run is alive. Takes at most twice the read timeout.

        Raises:
            ServerRefused: 400, no such job or trial.
            ServerUnreachable: no answer.
        """
        body = HeartbeatRequest(job_id=job_id, trial_number=trial_number)
        return self._call("POST", HEARTBEAT_PATH, HeartbeatAnswer, body=body)

    def end(self, request: TrialRequest) -> None:
        """End a trial that will not report again.

        Raises:
            ServerRefused: 404, no such job or trial.
            ServerUnreachable: no answer.
        """
        self._send("PATCH", TRIALS_PATH, request)

    def describe(self, job_id: str) -> JobSummary:
        """A job as it stands.

        Raises:
            ServerRefused: 404, no such job.
            ServerUnreachable: no answer.
        """
        return self._call("GET", f"{JOBS_PATH}/{quote(job_id, safe='')}", JobSummary)

    def list_trials(self, job_id: str, offset: int = 0, limit: int = MAX_PAGE) -> TrialPage:
        """A part of a job's trials, by rising number.

        Raises:
            ServerRefused: 404, no such job.
            ServerUnreachable: no answer.
        """
        path = f"{JOBS_PATH}/{quote(job_id, safe='')}/trials"
        return self._call("GET", path, TrialPage, query=PageQuery(offset=offset, limit=limit))

    def list_jobs(self, offset: int = 0, limit: int = MAX_PAGE) -> JobPage:
        """A part of the jobs, newest first.

        Raises:
            ServerUnreachable: no answer.
        """
        return self._call("GET", JOBS_PATH, JobPage, query=PageQuery(offset=offset, limit=limit))

    def _call(
        self, method: str, path: str, answer: type[Answer], *, body: Wire | None = None, query: Wire | None = None
    ) -> Answer:
        response = self._send(method, path, body, query)
        try:
            return answer.model_validate_json(response.content)
        except ValidationError as error:
            raise ServerUnreachable(
                f"{self._shown_url} answered {method} {path} with something else than a {answer.__name__}; "
                "is that the address of a batch-size-optimizer server?"
            ) from error

    def _send(self, method: str, path: str, body: Wire | None = None, query: Wire | None = None) -> requests.Response:
        try:
            response = self._session.request(
                method,
                self._url + path,
                data=None if body is None else body.model_dump_json().encode(),
                params=None if query is None else query.model_dump(),
                headers={"Content-Type": "application/json"},
                timeout=(CONNECT_TIMEOUT_S, READ_TIMEOUT_S),
                allow_redirects=False,  # a redirected POST would arrive as a GET
            )
        except requests.RequestException as error:
            raise ServerUnreachable(
                f"no answer from {self._shown_url} ({_cause(error)}); is the server running, and the address right?"
            ) from error
        if response.is_redirect:
            raise ServerUnreachable(
                f"{self._shown_url} redirects to {response.headers.get('Location')}; give that as the server's address"
            )
        if response.status_code >= 500:
            raise ServerUnreachable(
                f"{self._shown_url} failed: {_error(response).message} (HTTP {response.status_code})"
            )
        if response.status_code >= 400:
            raise ServerRefused(response.status_code, _error(response))
        return response


def _error(response: requests.Response) -> ErrorAnswer:
    try:
        return ErrorAnswer.model_validate_json(response.content)
    except ValidationError:
        return ErrorAnswer(message=f"{response.reason}: {response.text[:200]}")


def _cause(error: requests.RequestException) -> str:
    """The innermost reason, without the layers of the libraries in between."""
    inner: BaseException = error
    while (deeper := inner.__cause__ or inner.__context__) is not None:
        inner = deeper
    return getattr(inner, "strerror", None) or str(inner) or type(inner).__name__
