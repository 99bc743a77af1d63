"""Who may call what: a token as Bearer, or as the password of HTTP Basic.

As long as there is neither a token nor a user, the server is open to those on its own machine, if it listens there
alone, and closed otherwise. Who logs in to the admin page is looked at in `admin/login.py`.
"""

import ipaddress
from urllib.parse import urlsplit

from flask import current_app, request

from backend.errors import ForeignPage, TokenLacksScope, TokenNeeded
from backend.usecases import tokens, users
from backend.usecases.audit import Actor
from backend.usecases.tokens import Scope


def authorize(needed: Scope) -> Actor:
    """Let the current request pass if its token may do this. Returns who it is.

    Raises:
        TokenNeeded: there is none, or one that is unknown, expired or revoked.
        TokenLacksScope: its token may do less.
        ForeignPage: a page of another server makes a browser change something with a token that it remembers.
    """
    token = _token()
    if token is None:
        if is_guarded():
            raise TokenNeeded("this needs an access token; send it as Authorization: Bearer …")
        if not is_open_to_caller():
            raise TokenNeeded(
                "this server has no access tokens yet, so it answers only what its own machine asks of it directly. "
                "Its operator makes one with: python -m backend token create --label … --scope run"
            )
        return nobody()
    found = tokens.identify(token)
    if found is None:
        raise TokenNeeded("this access token is unknown, expired or revoked; ask the server's operator for another")
    if needed is not Scope.READ and _sent_by_foreign_page():
        raise ForeignPage
    if not found.scope.covers(needed):
        raise TokenLacksScope(f"this needs a token of scope {needed}; the one sent has {found.scope}")
    return Actor(f"token {found.label}", address(), found.job_id_prefix)


def is_guarded() -> bool:
    """Whether a token or a user was ever made: from then on, everybody must say who they are."""
    return tokens.any_exist() or users.any_exist()


def is_open_to_caller() -> bool:
    """Whether the current request may be answered as long as there is neither a token nor a user."""
    return bool(current_app.config["INSECURE_OPEN"]) or _from_its_own_machine()


def nobody() -> Actor:
    """The caller of a server that knows of neither tokens nor users."""
    return Actor("own machine" if _from_its_own_machine() else "anyone", address())


def address() -> str:
    """Where the current request comes from."""
    return (request.remote_addr or "")[:64]


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from its own machine alone."""
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _from_its_own_machine() -> bool:
    """Whether a call can only come from a program on this machine: no other host, no proxy, no web page."""
    # On a Unix socket gunicorn takes the server's name from the caller, but then there is no remote address.
    addresses = [request.environ.get("SERVER_NAME", ""), request.remote_addr or "", _host(f"//{request.host}")]
    if "Origin" in request.headers:
        addresses.append(_host(request.headers["Origin"]))
    forwarded = any(name.startswith(("X-Forwarded-", "Forwarded")) for name, _ in request.headers)
    by_trusted_proxy = "werkzeug.proxy_fix.orig" in request.environ
    # Without an Origin browsers send images, links and forms by GET, and one call by GET makes a trial.
    foreign = request.headers.get("Sec-Fetch-Site") == "cross-site"
    return all(map(is_loopback, addresses)) and not (forwarded or by_trusted_proxy or foreign)


def _sent_by_foreign_page() -> bool:
    """Whether a browser sent the token by itself, as it does with HTTP Basic, because a page not of ours told it to."""
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
    given = request.authorization
    if given is None:
        return None
    return given.token if given.type == "bearer" else given.password
