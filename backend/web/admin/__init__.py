"""The admin page: the state of jobs and trials, the actions on them, access tokens and the audit log.

`login.py` checks the user's role. Each other page has a file of its own, and `lists.py` has the three long lists.
`plots.py` turns plain data into figures. No page changes data itself: changes go through `backend.usecases`.
"""

from importlib.metadata import version

from flask import Flask, Request, Response, make_response, redirect, render_template, request, url_for
from flask.sessions import SecureCookieSession, SecureCookieSessionInterface
from flask.typing import ResponseReturnValue
from flask_wtf.csrf import CSRFError

from ...config import Settings
from ...core import run_status
from ...usecases import dashboard
from ...usecases.users import Role
from . import account, compare, derive, formatting, job, lists, login, notes, overview, savings, tokens, trial, users
from .blueprint import PATH, blueprint
from .breaking import brief

__all__ = [
    "account",
    "compare",
    "derive",
    "error_page",
    "is_admin_request",
    "job",
    "lists",
    "notes",
    "overview",
    "register",
    "savings",
    "tokens",
    "trial",
    "users",
]


class _Sessions(SecureCookieSessionInterface):
    def open_session(self, app: Flask, request: Request) -> SecureCookieSession | None:
        """Open the session of a request for the admin page. The calls of the API have none."""
        return super().open_session(app, request) if _is_of_page(request.path) else None

    def get_cookie_path(self, app: Flask) -> str:
        """The path that a proxy serves this server under. Other programs on its host do not get the cookie."""
        return request.script_root or "/"

    def get_cookie_secure(self, app: Flask) -> bool:
        """As configured, and always for a request that came over TLS."""
        return request.is_secure or super().get_cookie_secure(app)


def register(app: Flask, settings: Settings) -> None:
    """Add the admin page to the application."""
    app.config.update(
        SESSION_COOKIE_NAME="bso_session",
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Lax",
        # Browsers accept secure cookies from 127.0.0.1 without TLS too. A server with insecure_open may lack TLS.
        SESSION_COOKIE_SECURE=not settings.insecure_open,
        PERMANENT_SESSION_LIFETIME=login.SESSION_S,
        SESSION_REFRESH_EACH_REQUEST=False,  # an answer that arrives late would restore a deleted cookie
        WTF_CSRF_TIME_LIMIT=None,  # as long as the session
        AUTH_HEADER=settings.auth_header,
        AUTH_DEFAULT_ROLE=settings.auth_default_role and Role(settings.auth_default_role),
        PRICE_PER_KWH=settings.price_per_kwh,
        CURRENCY=settings.currency,
        GRAMS_CO2_PER_KWH=settings.grams_co2_per_kwh,
    )
    app.session_interface = _Sessions()
    login.manager.init_app(app)
    app.register_blueprint(blueprint)
    for template_filter in (
        formatting.amount,
        formatting.bill,
        formatting.duration,
        formatting.moment,
        dashboard.can_be_ended,
    ):
        app.add_template_filter(template_filter)
    app.add_template_filter(brief)
    app.add_template_filter(run_status.run_status, "run_status")
    app.add_template_filter(run_status.in_words, "status_in_words")
    app.add_template_filter(formatting.count, "counted")  # Jinja's own `count` is another
    plotly_version = version("plotly")

    # Who types only the server's address into a browser looks for the admin page.
    app.add_url_rule("/", view_func=lambda: redirect(url_for("admin.overview")), endpoint="start")

    @app.context_processor
    def template_variables() -> dict[str, object]:
        return {"plotly_version": plotly_version, "user": login.get_user(), "login_required": login.is_required()}

    @app.errorhandler(CSRFError)
    def refuse_form(error: CSRFError) -> ResponseReturnValue:
        if login.get_user() is None and request.endpoint != "admin.login":  # the CSRF token has gone with the session
            return login.redirect_to_login()
        return error_page(400, f"{error.description} Go back, reload the page, and try again."), 400


def is_admin_request() -> bool:
    """Whether the current request is for the admin page."""
    return _is_of_page(request.path)


def _is_of_page(path: str) -> bool:
    return path == PATH or path.startswith(f"{PATH}/")


def error_page(status: int, message: str) -> Response:
    """Make a page that shows an error."""
    return make_response(render_template("admin/error.html", status=status, message=message), status)
