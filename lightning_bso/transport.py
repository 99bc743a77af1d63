"""HTTP below the protocol: one session, timeouts, retries, errors and the access token.

It sends any request and returns the body of the answer. Every call can be repeated safely, because the server
recognizes runs and reports by their keys. So a call that got no answer is repeated.
The calls of the protocol are in `client`. What a run does while the server is away is in `outbox`.
"""

import math
import re
import ssl
from _thread import start_new_thread
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import TypeVar
from urllib.parse import urlsplit

import requests
from pydantic import ValidationError
from requests.auth import AuthBase
from tenacity import Retrying, retry_if_exception, stop_after_attempt, stop_before_delay, wait_exponential, wait_random
from urllib3.exceptions import HTTPError

from lightning_bso import variables
from lightning_bso.errors import ServerRefused, ServerUnreachable
from lightning_bso.wire import ErrorAnswer, Wire

CONNECT_TIMEOUT_S = 3.0
READ_TIMEOUT_S = 10.0
"""Longest time that one attempt takes, connecting included."""

PATIENT_ATTEMPTS = 7
"""With the waits between them some 10 s: enough for a server that restarts."""
ATTEMPTS = 2
"""For calls while training runs. A server closes idle connections, and the second attempt opens a new one."""
BACKOFF_S = 0.15
"""First wait between two attempts. The wait doubles each time, and a random part of up to this long is added."""

PIECE_BYTES = 64 * 1024
"""Bytes of a file that are received at a time."""
PIECE_TIMEOUT_S = 60.0
"""The server may take this long for a piece, since it first reads many rows."""
UNKNOWN_AUTHORITY = {2, 18, 19, 20, 21}
"""OpenSSL's numbers for a certificate of an authority that is not among the trusted ones, or of its own making."""
CA_BUNDLE = "REQUESTS_CA_BUNDLE"
"""Environment variable that names a file of trusted certificates. requests reads it."""

_hurry_s: ContextVar[float] = ContextVar("hurry_s", default=math.inf)

Result = TypeVar("Result")


@contextmanager
def hurried(seconds: float) -> Iterator[None]:
    """Give up sooner in this block: no attempt takes longer than this, and none begins later than this in its call."""
    before = _hurry_s.set(seconds)
    try:
        yield
    finally:
        _hurry_s.reset(before)


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


def check_token(token: str) -> None:
    """Check that a text can be sent as an access token. The error does not contain it.

    Raises:
        ValueError: it has a character that no header takes.
    """
    if not (token.isascii() and token.isprintable()):
        raise ValueError(
            "the access token cannot be sent: it contains characters that are not allowed in a token, such as the "
            f"line's end of a file; check {variables.TOKEN}"
        )


class Transport:
    """Sends requests to one server. Not for use by several threads at once.

    Args:
        server_url: address of the server. A path in it is kept.
        token: access token, sent as `Authorization: Bearer …`.

    Raises:
        ValueError: `server_url` is not an http(s) address, or `token` cannot be sent.
    """

    def __init__(self, server_url: str, token: str | None = None) -> None:
        check_address(server_url)
        if token is not None:
            check_token(token)
        self._url = server_url.rstrip("/")
        self.shown_url = _without_password(server_url)
        """Address of the server, without a password that the address may contain."""
        self._token = token
        self._session = self._open_session()
        self._without_body: dict[tuple[str, str], requests.PreparedRequest] = {}
        # Proxies and certificates from the environment. Reading them at every call would slow the calls down.
        self._settings = self._session.merge_environment_settings(self._url, {}, stream=None, verify=None, cert=None)

    def send(
        self, method: str, path: str, *, body: Wire | None = None, query: Wire | None = None, patient: bool
    ) -> bytes:
        """Send a request until the server answers. Return the body of the answer.

        Args:
            method: HTTP method.
            path: path below the server's address.
            body: sent as JSON.
            query: sent as the query string.
            patient: whether to wait for a server that restarts, some 10 s. Otherwise the call takes hardly longer than
                `READ_TIMEOUT_S`. In a block of `hurried`, either gives up sooner.

        Raises:
            ServerRefused: the server answers that it will not do this.
            ServerUnreachable: no answer.
        """
        retrying = Retrying(
            stop=stop_after_attempt(PATIENT_ATTEMPTS if patient else ATTEMPTS) | stop_before_delay(_hurry_s.get()),
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

    @contextmanager
    def stream(self, path: str, query: Wire) -> Iterator[Iterator[bytes]]:
        """Get a file in pieces, however large it is. Each piece may take `PIECE_TIMEOUT_S`.

        Raises:
            ServerRefused: the server answers that it will not do this.
            ServerUnreachable: no answer, or it breaks off.
        """
        timeout_s = (CONNECT_TIMEOUT_S, PIECE_TIMEOUT_S)
        try:
            with self._session.send(
                self._prepare("GET", path, query),
                timeout=timeout_s,
                allow_redirects=False,
                **(self._settings | {"stream": True}),
            ) as response:
                self._check(response)
                yield response.iter_content(PIECE_BYTES)
        except requests.RequestException as error:
            raise self._unreachable(error) from error

    def _send_once(self, method: str, path: str, body: Wire | None, query: Wire | None) -> bytes:
        timeout_s = min(READ_TIMEOUT_S, _hurry_s.get())
        try:
            return _within(timeout_s, lambda: self._exchange(method, path, body, query))
        except TimeoutError as error:
            self._session = self._open_session()  # the thread that still waits keeps the old one
            raise ServerUnreachable(
                f"no answer from {self.shown_url} (timed out after {timeout_s:g} s); "
                "is the server running, and is the address right?",
                transient=True,
            ) from error

    def _exchange(self, method: str, path: str, body: Wire | None, query: Wire | None) -> bytes:
        try:
            response = self._session.send(
                self._prepare(method, path, query) if body is None else self._prepare_with(method, path, body),
                timeout=(CONNECT_TIMEOUT_S, READ_TIMEOUT_S),
                allow_redirects=False,  # a redirected POST would arrive as a GET
                **self._settings,
            )
        except OSError as error:  # requests' own errors are OSErrors too
            raise self._unreachable(error) from error
        self._check(response)
        return response.content

    def _check(self, response: requests.Response) -> None:
        """Raise what an answer means that is no answer to the request."""
        if response.is_redirect:
            target = response.headers.get("Location")
            raise ServerUnreachable(f"{self.shown_url} redirects to {target}; use that as the server's address")
        if response.ok:
            return
        try:
            refusal = ErrorAnswer.model_validate_json(response.content)
        except ValidationError:  # the answer of a proxy or of another server
            refusal = ErrorAnswer(message=f"{response.reason}: {response.content[:200].decode(errors='replace')}")
        else:
            if response.status_code < 500:
                raise ServerRefused(response.status_code, refusal)
        raise ServerUnreachable(
            f"{self.shown_url} failed: {refusal.message} (HTTP {response.status_code})",
            transient=response.status_code in (502, 503, 504),
        )

    def _unreachable(self, error: OSError) -> ServerUnreachable:
        """Say why there is no answer, and what to do about it."""
        cause = _cause(error)
        if isinstance(cause, ssl.SSLCertVerificationError):
            text = f"the certificate of {self.shown_url} is not trusted ({cause.verify_message})"
            if cause.verify_code in UNKNOWN_AUTHORITY:
                text += (
                    f"; if it is your own authority's, set ${CA_BUNDLE} to the file with the authority's certificate"
                )
            return ServerUnreachable(text)
        reason = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
        if not isinstance(error, requests.RequestException):  # requests finds no file of trusted certificates
            return ServerUnreachable(f"{self.shown_url} cannot be called: {reason}; check ${CA_BUNDLE}")
        return ServerUnreachable(
            f"no answer from {self.shown_url} ({reason}); is the server running, and is the address right?",
            transient=True,
        )

    def _prepare(self, method: str, path: str, query: Wire | None = None) -> requests.PreparedRequest:
        parameters = None if query is None else query.model_dump()
        headers = {"Content-Type": "application/json"}
        return self._session.prepare_request(
            requests.Request(method, self._url + path, params=parameters, headers=headers)
        )

    def _prepare_with(self, method: str, path: str, body: Wire) -> requests.PreparedRequest:
        """Prepare a request with a body. Only the body differs between two reports, so the rest is prepared once."""
        if (method, path) not in self._without_body:
            first = self._without_body[method, path] = self._prepare(method, path)
            first.headers.pop("Cookie", None)  # a server or a proxy may change its cookies at each answer
        request = self._without_body[method, path].copy()
        request.prepare_body(body.model_dump_json().encode(), None)
        request.prepare_cookies(self._session.cookies)
        return request

    def _open_session(self) -> requests.Session:
        session = requests.Session()
        if self._token is not None:
            session.auth = _Bearer(self._token)
        return session


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
    results: SimpleQueue[Result | _Raised] = SimpleQueue()

    def run() -> None:
        try:
            results.put(call())
        except BaseException as error:  # raised where the result is waited for
            results.put(_Raised(error))

    try:
        start_new_thread(run, ())  # `threading.Thread` also waits until the thread has begun, and this is done often
    except RuntimeError:  # no further thread can start; the socket's own timeouts still apply
        return call()
    try:
        result = results.get(timeout=seconds)
    except Empty:
        raise TimeoutError from None
    if isinstance(result, _Raised):
        raise result.error
    return result


@dataclass(frozen=True)
class _Raised:
    """Stands for the result of a call that has raised an error."""

    error: BaseException


def _without_password(server_url: str) -> str:
    return re.sub(r"[^/]*@", "", server_url)


def _cause(error: BaseException) -> BaseException:
    """The reason below the layers of requests and urllib3."""
    while isinstance(error, (requests.RequestException, HTTPError)):
        deeper = error.__cause__ or error.__context__
        if deeper is None:
            break
        error = deeper
    return error
