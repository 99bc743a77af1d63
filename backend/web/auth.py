"""Access control of the API: a token sent as Bearer, or as the password of HTTP Basic.

Without any token or user the server answers only programs on its own machine, and only if it listens on a loopback
address. The setting `insecure_open` overrides this. The login to the admin page lives in `admin/login.py`.
"""

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from threading import Lock
from typing import Any, TypeVar
from urllib.parse import urlsplit

from cachetools import TTLCache
from flask import current_app, request

from .. import COMMAND
from ..database import accounts
from ..errors import ForeignPage, TokenLacksScope, TokenNeeded
from ..usecases import tokens
from ..usecases.audit import Actor
from ..usecases.tokens import Scope

R = TypeVar("R")

MAX_REMEMBERED = 10_000
"""Number of answers about tokens and users that a process remembers."""


def authorize(required: Scope) -> Actor:
    """Check the access token of the current request, and return the caller.

    Raises:
        TokenNeeded: the request has no token, or the token is unknown, expired or revoked.
        TokenLacksScope: the token's scope does not include the required scope.
        ForeignPage: a web page of another server makes a browser send a change with a token that it remembers.
    """
    token = _token()
    if token is None:
        if is_guarded():
            raise TokenNeeded("this call needs an access token; send it as Authorization: Bearer …")
        by_own_machine = _from_own_machine()
        if not (by_own_machine or current_app.config["INSECURE_OPEN"]):
            raise TokenNeeded(
                "this server has no access tokens yet, so it answers only direct calls from its own machine. "
                f"Its operator can create a token: {COMMAND} token create --label … --scope run"
            )
        return _anonymous(by_own_machine=by_own_machine)
    info = _remembered(f"token {tokens.hash_of(token)}", lambda: tokens.identify(token))
    if info is None:
        raise TokenNeeded("this access token is unknown, expired or revoked; ask the server's operator for another")
    if required is not Scope.READ and _sent_by_foreign_page():
        raise ForeignPage
    if not info.scope.covers(required):
        raise TokenLacksScope(f"this call needs a token of scope {required}; the token sent has scope {info.scope}")
    return Actor(f"token {info.label}", address(), info.job_id_prefix)


def is_guarded() -> bool:
    """Whether a token or a user was ever created. From then on every call needs a token or a login."""
    return bool(_remembered("is guarded", tokens.anyone_registered))


def is_open_to_caller() -> bool:
    """Whether the current request is answered while there is neither a token nor a user."""
    return bool(current_app.config["INSECURE_OPEN"]) or _from_own_machine()


def is_by_trusted_proxy() -> bool:
    """Whether a proxy of the setting `trusted_proxies` has sent the current request."""
    return "werkzeug.proxy_fix.orig" in request.environ  # `security` lets ProxyFix see no other requests


def anonymous_actor() -> Actor:
    """Return the caller of a server without tokens and users."""
    return _anonymous(by_own_machine=_from_own_machine())


def _anonymous(*, by_own_machine: bool) -> Actor:
    return Actor("own machine" if by_own_machine else "anyone", address())


def address() -> str:
    """Return the address that the current request comes from."""
    return (request.remote_addr or "")[:64]


@lru_cache  # a small one, because callers choose the text
def is_loopback(host: str) -> bool:
    """Whether only the machine itself can reach an address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True)
class _Cache:
    """What a process remembers of the database's answers about tokens and users."""

    answers: TTLCache[tuple[int, str], Any]
    lock: Lock = field(default_factory=Lock)


def _cache() -> _Cache:
    seconds = float(current_app.config["AUTH_CACHE_S"])
    cache: _Cache = current_app.extensions.setdefault(__name__, _Cache(TTLCache(MAX_REMEMBERED, seconds)))
    return cache


def _remembered(name: str, ask: Callable[[], R | None]) -> R | None:
    """Return an answer of the database. One other than None is remembered for a few seconds.

    After a change of a token or a user by this process, earlier answers are not found any more.
    """
    cache, key = _cache(), (accounts.changes(), name)
    with cache.lock:
        answer: R | None = cache.answers.get(key)
    if answer is None:
        answer = ask()
        if answer is not None and cache.answers.ttl > 0:
            with cache.lock:
                cache.answers[key] = answer
    return answer


def _from_own_machine() -> bool:
    """Whether only a program on this machine can have sent the request: no other host, no proxy, no web page."""
    # Behind a Unix socket a request has no remote address, so it fails.
    environ = request.environ
    addresses = [environ.get("SERVER_NAME", ""), environ.get("REMOTE_ADDR") or "", _host(f"//{request.host}")]
    if "HTTP_ORIGIN" in environ:
        addresses.append(_host(environ["HTTP_ORIGIN"]))
    names = " ".join(environ)
    forwarded = "HTTP_X_FORWARDED_" in names or "HTTP_FORWARDED" in names
    by_trusted_proxy = is_by_trusted_proxy()
    # Browsers send GET requests for images, links and forms without an Origin, and one GET call creates a trial.
    foreign = environ.get("HTTP_SEC_FETCH_SITE") == "cross-site"
    return all(map(is_loopback, addresses)) and not (forwarded or by_trusted_proxy or foreign)


def _sent_by_foreign_page() -> bool:
    """Whether a page of another server made a browser send the request with HTTP Basic.

    Browsers remember the password of HTTP Basic and add it automatically.
    """
    if request.authorization is None or request.authorization.type != "basic":
        return False
    own_site = request.headers.get("Sec-Fetch-Site") in (None, "none", "same-origin")
    own_origin = request.headers.get("Origin") in (None, f"http://{request.host}", f"https://{request.host}")
    return not (own_site and own_origin)


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _token() -> str | None:
    header = request.authorization
    if header is None:
        return None
    return header.token if header.type == "bearer" else header.password
