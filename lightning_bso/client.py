"""The calls of the protocol over HTTP: one session, timeouts, retries, a token. No state of a run is here.

Every call may be repeated without harm (the server knows runs and reports by their keys), so each is
retried when no answer came. Not by urllib3's Retry, which writes a line to the log at every attempt and
waits as long as a server's Retry-After says; a training has to be told once, and must not wait.
"""

import random
import re
import socket
import time
from http.client import HTTPResponse
from io import BufferedReader, RawIOBase
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

import requests
from pydantic import ValidationError
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from urllib3.connectionpool import ConnectionPool
from urllib3.exceptions import HTTPError, ReadTimeoutError

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

PATIENT_ATTEMPTS = 6
"""With the waits in between some 10 s: enough for a server that is being restarted."""
ATTEMPTS = 2
"""A kept connection may just have been closed. What this call of a training could not bring, its next one does."""
BACKOFF_S = 0.3
"""Longest wait before the first repetition; it doubles from one to the next."""

Answer = TypeVar("Answer", bound=Wire)


def check_address(server_url: str) -> None:
    """Refuse what cannot be a server's address.

    Raises:
        ValueError: `server_url` is no http(s) address.
    """
    try:
        parts = urlsplit(server_url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a port or an IPv6 address that is none
        usable = False
    if not usable:
        shown = _without_password(server_url)
        raise ValueError(f"server_url {shown!r} is no address; it looks like http://host:8000")


def _without_password(server_url: str) -> str:
    return re.sub(r"[^/]*@", "", server_url)


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
        check_address(server_url)
        self._url = server_url.rstrip("/")
        self._shown_url = _without_password(server_url)
        self._session = requests.Session()
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, _Adapter())
        if token is not None:
            self._session.auth = _Bearer(token)
        # Proxies and certificates that the environment names; looking for them at every call takes its time.
        self._settings = self._session.merge_environment_settings(self._url, {}, stream=True, verify=None, cert=None)

    def register(self, spec: RegisteredJobSpec) -> RegisteredJobSpec:
        """Register a job; the answer has its `job_id`. Registering the same again changes nothing.

        Raises:
            ServerRefused: 409, the id stands for another spec; 422, the spec is not valid.
            ServerUnreachable: no answer.
        """
        return self._call("POST", JOBS_PATH, RegisteredJobSpec, body=spec)

    def ask(self, job_id: str, run_id: str, *, resumes: bool = True) -> AskAnswer:
        """The batch size for a run; the same run always gets the same trial.

        Args:
            job_id: the job.
            run_id: the run's name.
            resumes: whether to go on even with a trial that was left at its end without a verdict.

        Raises:
            ServerRefused: 400, no such job; 409, no batch size is left to give.
            ServerUnreachable: no answer.
        """
        request = AskRequest(job_id=job_id, run_id=run_id, host=socket.gethostname() or None, resumes=resumes)
        return self._call("POST", TRIALS_PATH, AskAnswer, body=request)

    def report(self, request: ReportRequest) -> ReportAnswer:
        """Report what a validation found. Takes hardly more than the read timeout.

        Raises:
            ServerRefused: 400, no such job or trial; 409, it contradicts an earlier report.
            ServerUnreachable: no answer; send the same report again later.
        """
        return self._call("POST", REPORT_PATH, ReportAnswer, body=request, patient=False)

    def heartbeat(self, job_id: str, trial_number: int) -> HeartbeatAnswer:
        """Say that a run is alive. Takes hardly more than the read timeout.

        Raises:
            ServerRefused: 400, no such job or trial.
            ServerUnreachable: no answer.
        """
        body = HeartbeatRequest(job_id=job_id, trial_number=trial_number)
        return self._call("POST", HEARTBEAT_PATH, HeartbeatAnswer, body=body, patient=False)

    def probe(self, request: ProbeRequest) -> None:
        """Report what a probe of batch sizes told. A job's first counts. Takes hardly more than the read timeout.

        Raises:
            ServerRefused: 400, no such job or trial; 422, it tells of no batch size of the job.
            ServerUnreachable: no answer.
        """
        self._send("POST", PROBE_PATH, body=request, patient=False)

    def end(self, request: TrialRequest) -> None:
        """End a trial that will not report again. Takes hardly more than the read timeout.

        Raises:
            ServerRefused: 404, no such job or trial.
            ServerUnreachable: no answer.
        """
        self._send("PATCH", TRIALS_PATH, body=request, patient=False)

    def describe(self, job_id: str) -> JobSummary:
        """A job as it stands.

        Raises:
            ServerRefused: 404, no such job.
            ServerUnreachable: no answer.
        """
        return self._call("GET", f"{JOBS_PATH}/{quote(job_id, safe='')}", JobSummary, patient=False)

    def list_trials(self, job_id: str, offset: int = 0, limit: int = MAX_PAGE) -> TrialPage:
        """A part of a job's trials, by rising number.

        Raises:
            ServerRefused: 404, no such job.
            ServerUnreachable: no answer.
        """
        path = f"{JOBS_PATH}/{quote(job_id, safe='')}/trials"
        return self._call("GET", path, TrialPage, query=PageQuery(offset=offset, limit=limit))

    def tell_belief(self, job_id: str) -> JobBelief:
        """What a job's policy expects of each batch size, and what a run that asks now would get.

        Raises:
            ServerRefused: 404, no such job.
            ServerUnreachable: no answer.
        """
        return self._call("GET", f"{JOBS_PATH}/{quote(job_id, safe='')}/belief", JobBelief)

    def tell_savings(self, job_id: str) -> JobSavings:
        """What a job has spent, and saved against always the default and always the best batch size.

        Raises:
            ServerRefused: 404, no such job.
            ServerUnreachable: no answer.
        """
        return self._call("GET", f"{JOBS_PATH}/{quote(job_id, safe='')}/savings", JobSavings)

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
        """A part of the jobs, newest first; a filter that is None does not matter.

        Args:
            offset: how many to leave out.
            limit: how many to return at most.
            contains: what the ids hold anywhere.
            policy: how they pick batch sizes.
            gpu_model: what they run on.
            paused: whether every run gets the default batch size.

        Raises:
            ServerUnreachable: no answer.
        """
        query = JobsQuery(
            offset=offset, limit=limit, contains=contains, policy=policy, gpu_model=gpu_model, paused=paused
        )
        return self._call("GET", JOBS_PATH, JobPage, query=query)

    @property
    def address(self) -> str:
        """Where the server is, without a password that the address may hold."""
        return self._shown_url

    def server_version(self) -> str:
        """The server's version; anyone may ask.

        Raises:
            ServerUnreachable: no answer, or not of a batch-size-optimizer server.
        """
        return self._call("GET", DOCUMENT_PATH, Document, patient=False).info.version

    def check_ready(self) -> None:
        """Make sure that the server's database answers and has the right schema; anyone may ask.

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
                f"{self._shown_url} answered {method} {path} with something else than a {answer.__name__}; "
                "is that the address of a batch-size-optimizer server?"
            ) from error

    def _send(
        self, method: str, path: str, *, body: Wire | None = None, query: Wire | None = None, patient: bool
    ) -> bytes:
        """Send a request until it is answered; the answer's body."""
        attempts = PATIENT_ATTEMPTS if patient else ATTEMPTS
        for attempt in range(1, attempts + 1):
            try:
                return self._send_once(method, path, body, query)
            except _Unanswered as error:
                timed_out = isinstance(error.__cause__, (requests.Timeout, ReadTimeoutError))
                if attempt == attempts or (timed_out and not patient):
                    raise ServerUnreachable(str(error)) from error.__cause__
            time.sleep(random.uniform(0.3, 1) * BACKOFF_S * 2 ** (attempt - 1))  # noqa: S311 - jitter, not a secret
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _send_once(self, method: str, path: str, body: Wire | None, query: Wire | None) -> bytes:
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
            with response:
                content: bytes = response.raw.read(decode_content=True)
        except (requests.RequestException, HTTPError) as error:
            raise _Unanswered(
                f"no answer from {self._shown_url} ({_cause(error)}); is the server running, and the address right?"
            ) from error
        if response.is_redirect:
            target = response.headers.get("Location")
            raise ServerUnreachable(f"{self._shown_url} redirects to {target}; give that as the server's address")
        if response.ok:
            return content
        try:
            said = ErrorAnswer.model_validate_json(content)
        except ValidationError:  # of something in between, or of another server
            said = ErrorAnswer(message=f"{response.reason}: {content[:200].decode(errors='replace')}")
        else:
            if response.status_code < 500:
                raise ServerRefused(response.status_code, said)
        kind = _Unanswered if response.status_code in (502, 503, 504) else ServerUnreachable
        raise kind(f"{self._shown_url} failed: {said.message} (HTTP {response.status_code})")


class _Adapter(HTTPAdapter):
    """Connects as ever, and gives a whole answer, its headers included, no longer than the read timeout."""

    def get_connection_with_tls_context(self, *arguments: Any, **options: Any) -> ConnectionPool:
        pool: Any = super().get_connection_with_tls_context(*arguments, **options)
        if not issubclass(pool.ConnectionCls.response_class, _WholeAnswer):
            pool.ConnectionCls = type("_Connection", (pool.ConnectionCls,), {"response_class": _WholeAnswer})
        return pool  # type: ignore[no-any-return]


class _WholeAnswer(HTTPResponse):
    """What comes on a connection; made when the request has been sent."""

    def __init__(self, sock: socket.socket, *arguments: Any, **options: Any) -> None:
        super().__init__(sock, *arguments, **options)
        self.fp = BufferedReader(_UntilDeadline(sock, self.fp))


class _UntilDeadline(RawIOBase):
    """Reads from a socket until a moment that does not move; a socket's own timeout starts anew at every byte."""

    def __init__(self, sock: socket.socket, stream: BufferedReader) -> None:
        self._socket = sock
        self._stream = stream
        self._deadline = time.monotonic() + READ_TIMEOUT_S

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left_s = self._deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError(f"the answer was not complete after {READ_TIMEOUT_S:g} s")
        self._socket.settimeout(left_s)
        return self._stream.readinto1(buffer)

    def close(self) -> None:
        self._stream.close()
        super().close()


class _Unanswered(Exception):
    """Nothing came that the server meant as an answer; another attempt may fare better."""


def _cause(error: BaseException) -> str:
    """The reason below the layers of the libraries, and not what the training was handling meanwhile."""
    while isinstance(error, (requests.RequestException, HTTPError)):
        deeper = error.__cause__ or error.__context__
        if deeper is None:
            break
        error = deeper
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
