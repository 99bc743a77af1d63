"""Who may call what: a token as Bearer, or as the password of HTTP Basic.

As long as no token was ever made, the server is open to those on its own machine, if it listens there
alone, and closed otherwise.
"""

import ipaddress
from urllib.parse import urlsplit

from flask import current_app, request

from backend import tokens
from backend.errors import TokenLacksScope, TokenNeeded
from backend.tokens import Scope


def authorize(needed: Scope) -> None:
    """Let the current request pass if its token may do this.

    Raises:
        TokenNeeded: there is none, or one that is unknown, expired or revoked.
        TokenLacksScope: its token may do less.
    """
    token = _token()
    if token is None:
        if tokens.any_exist():
            raise TokenNeeded("this needs an access token; send it as Authorization: Bearer …")
        if not (current_app.config["INSECURE_OPEN"] or _from_its_own_machine()):
            raise TokenNeeded(
                "this server has no access tokens yet, so it answers only what its own machine asks of it directly. "
                "Its operator makes one with: python -m backend token create --label … --scope run"
            )
        return
    scope = tokens.scope_of(token)
    if scope is None:
        raise TokenNeeded("this access token is unknown, expired or revoked; ask the server's operator for another")
    if not scope.covers(needed):
        raise TokenLacksScope(f"this needs a token of scope {needed}; the one sent has {scope}")


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
    return all(map(is_loopback, addresses)) and not forwarded


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
