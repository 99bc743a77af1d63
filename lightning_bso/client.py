"""The protocol's calls over HTTP: one session, timeouts, retries and the access token. No state of a run lives here.

Every call can be repeated safely, because the server recognizes runs and reports by their keys. So the client repeats
a call that got no answer. What a run does while the server is away: `outbox`.
"""

import re
import socket
from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import TypeVar
from urllib.parse import quote, urlsplit

import requests
from pydantic import ValidationError
from requests.auth import AuthBase
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential, wait_random
from urllib3.exceptions import HTTPError

from lightning_bso.errors import ServerRefused, ServerUnreachable
from lightning_bso.wire import (
    DOCUMENT_PATH,
    HEARTBEAT_PATH,
    JOBS_PATH,
    MAX_PAGE,
    PROBE_PATH,
    READY_PATH,
    REPORT_PATH,
    TRIALS_PATH,
    AskAnswer,
    AskRequest,
    Document,
    ErrorAnswer,
    HeartbeatAnswer,
    HeartbeatRequest,
    JobBelief,
    JobPage,
    JobSavings,
    JobsQuery,
    JobSummary,
    PageQuery,
    Policy,
    ProbeRequest,
    RegisteredJobSpec,
    ReportAnswer,
    ReportRequest,
    TrialPage,
    TrialRequest,
    Wire,
)

CONNECT_TIMEOUT_S = 3.0
READ_TIMEOUT_S = 10.0
"""Longest time that one attempt takes, connecting included."""

PATIENT_ATTEMPTS = 7
"""With the waits between them some 10 s: enough for a server that restarts."""
ATTEMPTS = 2
"""For calls while training runs. A server closes idle connections, and the second attempt opens a new one."""
BACKOFF_S = 0.15
"""First wait between two attempts. The wait doubles each time, and a random part of up to this long is added."""

Answer = TypeVar("Answer", bound=Wire)
Result = TypeVar("Result")


def check_address(server_url: str) -> None:
    """Check that a text can be a server's address.

    Raises:
        ValueError: `server_url` is not an http(s) address.
    """
    try:
        parts = urlsplit(server_url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # an invalid port or IPv6 address
        usable = False
    if not usable:
        shown = _without_password(server_url)
        raise ValueError(f"server_url {shown!r} is not an address; an address looks like http://host:8000")


class BsoClient:
    """Calls one server. Not for use by several threads at once.

    Args:
        server_url: address of the server, such as `http://bso.example:8000`. A path in it is kept.
        token: access token, sent as `Authorization: Bearer …`.

    Raises:
        ValueError: `server_url` is not an http(s) address.
    """

    def __init__(self, server_url: str, token: str | None = None) -> None:
        check_address(server_url)
        self._url = server_url.rstrip("/")
        self._shown_url = _without_password(server_url)
        self._token = token
        self._session = self._open_session()
        # Proxies and certificates from the environment. Reading them at every call would slow the calls down.
        self._settings = self._session.merge_environment_settings(self._url, {}, stream=None, verify=None, cert=None)

    def _open_session(self) -> requests.Session:
        session = requests.Session()
        if self._token is not None:
            session.auth = _Bearer(self._token)
        return session

    def register(self, spec: RegisteredJobSpec) -> RegisteredJobSpec:
        """Register a job and return its spec with the `job_id`. The same spec sent again changes nothing.

        Raises:
            ServerRefused: 409, the id belongs to a job with another spec; 422, the spec is not valid.
            ServerUnreachable: no answer.
        """
        return self._call("POST", JOBS_PATH, RegisteredJobSpec, body=spec)

    def ask(self, job_id: str, run_id: str, *, resumes: bool = True) -> AskAnswer:
        """Ask for the batch size of a run. The same run always gets the same trial.

        Args:
            job_id: the job.
            run_id: the run's name.
            resumes: whether the run also resumes a trial whose fit ended without a verdict.

        Raises:
            ServerRefused: 400, no such job; 409, no batch size is left.
            ServerUnreachable: no answer.
        """
        request = AskRequest(job_id=job_id, run_id=run_id, host=socket.gethostname() or None, resumes=resumes)
        return self._call("POST", TRIALS_PATH, AskAnswer, body=request)

    def report(self, request: ReportRequest) -> ReportAnswer:
        """Report the result of a validation. Takes hardly longer than `READ_TIMEOUT_S`.

        Raises:
            ServerRefused: 400, no such job or trial; 409, the report contradicts an earlier one.
            ServerUnreachable: no answer. Send the same report again later.
        """
        return self._call("POST", REPORT_PATH, ReportAnswer, body=request, patient=False)

    def heartbeat(self, job_id: str, trial_number: int) -> HeartbeatAnswer:
        """Renew the lease of a trial whose run is alive. Takes hardly longer than `READ_TIMEOUT_S`.

        Raises:
            ServerRefused: 400, no such job or trial.
            ServerUnreachable: no answer.
        """
        body = HeartbeatRequest(job_id=job_id, trial_number=trial_number)
        return self._call("POST", HEARTBEAT_PATH, HeartbeatAnswer, body=body, patient=False)

    def probe(self, request: ProbeRequest) -> None:
        """Report a probe of batch sizes. Only a job's first probe counts. Takes hardly longer than `READ_TIMEOUT_S`.

        Raises:
            ServerRefused: 400, no such job or trial; 422, the probe names a batch size that the job does not have.
            ServerUnreachable: no answer.
        """
        self._send("POST", PROBE_PATH, body=request, patient=False)

    def end(self, request: TrialRequest) -> None:
        """End a trial that will not report again. Takes hardly longer than `READ_TIMEOUT_S`.

        Raises:
            ServerRefused: 404, no such job or trial.
            ServerUnreachable: no answer.
        """
        self._send("PATCH", TRIALS_PATH, body=request, patient=False)

    def describe(self, job_id: str) -> JobSummary:
        """Return the current state of a job.

        Raises:
            ServerRefused: 404, no such job.
            ServerUnreachable: no answer.
        """
        return self._call("GET", _job_path(job_id), JobSummary, patient=False)

    def list_trials(self, job_id: str, offset: int = 0, limit: int = MAX_PAGE) -> TrialPage:
        """Return a part of a job's trials, by rising number.

        Raises:
            ServerRefused: 404, no such job.
            ServerUnreachable: no answer.
        """
        return self._call("GET", _job_path(job_id) + "/trials", TrialPage, query=PageQuery(offset=offset, limit=limit))

    def get_belief(self, job_id: str) -> JobBelief:
        """Return the cost that the job's policy expects of each batch size, and the next run's batch size.

        Raises:
            ServerRefused: 404, no such job.
            ServerUnreachable: no answer.
        """
        return self._call("GET", _job_path(job_id) + "/belief", JobBelief)

    def get_savings(self, job_id: str) -> JobSavings:
        """Return what a job spent, and its savings compared with the default and with the best batch size.

        Raises:
            ServerRefused: 404, no such job.
            ServerUnreachable: no answer.
        """
        return self._call("GET", _job_path(job_id) + "/savings", JobSavings)

    def list_jobs(
        self,
        offset: int = 0,
        limit: int = MAX_PAGE,
        *,
        contains: str | None = None,
        policy: Policy | None = None,
        gpu_model: str | None = None,
        paused: bool | None = None,
    ) -> JobPage:
        """Return a part of the jobs, newest first. A filter that is None is not applied.

        Args:
            offset: how many jobs to skip.
            limit: how many jobs to return at most.
            contains: a part of the id.
            policy: the policy that picks the batch sizes.
            gpu_model: the GPU model.
            paused: whether the job is paused.

        Raises:
            ServerUnreachable: no answer.
        """
        query = JobsQuery(
            offset=offset, limit=limit, contains=contains, policy=policy, gpu_model=gpu_model, paused=paused
        )
        return self._call("GET", JOBS_PATH, JobPage, query=query)

    @property
    def address(self) -> str:
        """Address of the server, without a password that the address may contain."""
        return self._shown_url

    def server_version(self) -> str:
        """Return the server's version. The call needs no token.

        Raises:
            ServerUnreachable: no answer, or the answer of another kind of server.
        """
        return self._call("GET", DOCUMENT_PATH, Document, patient=False).info.version

    def check_ready(self) -> None:
        """Check that the server's database answers and has the right schema. The call needs no token.

        Raises:
            ServerUnreachable: it does not, or the server does not answer.
        """
        self._send("GET", READY_PATH, patient=False)

    def _call(
        self,
        method: str,
        path: str,
        answer: type[Answer],
        *,
        body: Wire | None = None,
        query: Wire | None = None,
        patient: bool = True,
    ) -> Answer:
        content = self._send(method, path, body=body, query=query, patient=patient)
        try:
            return answer.model_validate_json(content)
        except ValidationError as error:
            raise ServerUnreachable(
                f"{self._shown_url} answered {method} {path} with something other than a {answer.__name__}; "
                "is that the address of a batch-size-optimizer server?"
            ) from error

    def _send(
        self, method: str, path: str, *, body: Wire | None = None, query: Wire | None = None, patient: bool
    ) -> bytes:
        """Send a request until the server answers. Return the body of the answer."""
        retrying = Retrying(
            stop=stop_after_attempt(PATIENT_ATTEMPTS if patient else ATTEMPTS),
            wait=wait_exponential(multiplier=BACKOFF_S) + wait_random(0, BACKOFF_S),
            retry=retry_if_exception(
                lambda error: (
                    isinstance(error, ServerUnreachable)
                    and error.transient
                    and (patient or not isinstance(error.__cause__, (requests.Timeout, TimeoutError)))
                )
            ),
            reraise=True,
        )
        return retrying(self._send_once, method, path, body, query)

    def _send_once(self, method: str, path: str, body: Wire | None, query: Wire | None) -> bytes:
        try:
            return _within(READ_TIMEOUT_S, lambda: self._exchange(method, path, body, query))
        except TimeoutError as error:
            self._session = self._open_session()  # the thread that still waits keeps the old one
            raise ServerUnreachable(
                f"no answer from {self._shown_url} (timed out after {READ_TIMEOUT_S:g} s); "
                "is the server running, and is the address right?",
                transient=True,
            ) from error

    def _exchange(self, method: str, path: str, body: Wire | None, query: Wire | None) -> bytes:
        try:
            request = requests.Request(
                method,
                self._url + path,
                data=None if body is None else body.model_dump_json().encode(),
                params=None if query is None else query.model_dump(),
                headers={"Content-Type": "application/json"},
            )
            response = self._session.send(
                self._session.prepare_request(request),
                timeout=(CONNECT_TIMEOUT_S, READ_TIMEOUT_S),
                allow_redirects=False,  # a redirected POST would arrive as a GET
                **self._settings,
            )
        except requests.RequestException as error:
            raise ServerUnreachable(
                f"no answer from {self._shown_url} ({_cause(error)}); is the server running, and is the address right?",
                transient=True,
            ) from error
        if response.is_redirect:
            target = response.headers.get("Location")
            raise ServerUnreachable(f"{self._shown_url} redirects to {target}; use that as the server's address")
        if response.ok:
            return response.content
        try:
            refusal = ErrorAnswer.model_validate_json(response.content)
        except ValidationError:  # the answer of a proxy or of another server
            refusal = ErrorAnswer(message=f"{response.reason}: {response.content[:200].decode(errors='replace')}")
        else:
            if response.status_code < 500:
                raise ServerRefused(response.status_code, refusal)
        raise ServerUnreachable(
            f"{self._shown_url} failed: {refusal.message} (HTTP {response.status_code})",
            transient=response.status_code in (502, 503, 504),
        )


class _Bearer(AuthBase):
    """Sends a token. It is an `auth` and not a header, because a .netrc would override a header."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


def _within(seconds: float, call: Callable[[], Result]) -> Result:
    """Call a function and wait for its result up to a deadline. A socket's own timeout restarts at every byte.

    Raises:
        TimeoutError: there is no result yet. The call goes on in its thread until the server ends it, and its result is
            dropped.
    """
    result: Future[Result] = Future()

    def run() -> None:
        try:
            result.set_result(call())
        except BaseException as error:  # raised where the result is waited for
            result.set_exception(error)

    try:
        Thread(target=run, daemon=True).start()
    except RuntimeError:  # no further thread can start; the socket's own timeouts still apply
        return call()
    return result.result(timeout=seconds)


def _job_path(job_id: str) -> str:
    return f"{JOBS_PATH}/{quote(job_id, safe='')}"


def _without_password(server_url: str) -> str:
    return re.sub(r"[^/]*@", "", server_url)


def _cause(error: BaseException) -> str:
    """The reason below the layers of requests and urllib3."""
    while isinstance(error, (requests.RequestException, HTTPError)):
        deeper = error.__cause__ or error.__context__
        if deeper is None:
            break
        error = deeper
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
