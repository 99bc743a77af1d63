"""Security headers of all answers, and the proxies whose X-Forwarded-* headers are trusted.

The access control lives in `auth` and `admin/login.py`.
"""

import ipaddress
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from flask import Flask, Response, request
from werkzeug.middleware.proxy_fix import ProxyFix

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

# Scripts come from this server and are never inline. Plotly writes inline styles, but no inline scripts.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "font-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
# The API documentation is a page of a library with inline scripts. It contains no secret.
_POLICY_OF_DOCUMENTATION = _POLICY.replace("script-src 'self'", "script-src 'self' 'unsafe-inline'")


def protect(app: Flask, trusted_proxies: str) -> None:
    """Set the security headers of all answers, and trust X-Forwarded-* headers only from configured proxies.

    Args:
        app: the application.
        trusted_proxies: addresses or networks, separated by commas.
    """

    @app.after_request
    def harden(response: Response) -> Response:
        documentation = request.path.startswith("/openapi")
        response.headers["Content-Security-Policy"] = _POLICY_OF_DOCUMENTATION if documentation else _POLICY
        response.headers.extend(_HEADERS)  # no page sets one of them
        response.headers.setdefault("Cache-Control", "no-store")
        if request.is_secure:
            response.headers["Strict-Transport-Security"] = "max-age=31536000"
        return response

    networks = [ipaddress.ip_network(part.strip()) for part in trusted_proxies.split(",") if part.strip()]
    if networks:
        app.wsgi_app = _TrustSome(app.wsgi_app, networks)  # type: ignore[method-assign]


class _TrustSome:
    """WSGI middleware that applies X-Forwarded-* headers from trusted proxies.

    `auth.is_by_trusted_proxy` recognizes such requests by the key that ProxyFix adds to the environment.
    """

    def __init__(self, app: "WSGIApplication", networks: list[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> None:
        self._plain, self._behind_proxy = app, ProxyFix(app, x_for=1, x_proto=1, x_host=1, x_prefix=1)
        self._networks = networks

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        return (self._behind_proxy if self._trusts(environ) else self._plain)(environ, start_response)

    def _trusts(self, environ: dict[str, Any]) -> bool:
        try:
            caller = ipaddress.ip_address(environ.get("REMOTE_ADDR", ""))
        except ValueError:
            return False
        return any(caller in network for network in self._networks)
