"""The admin page: what the optimizer believes and saved, for people.

`login.py` says who is asking, `pages.py` answers, `tables.py` holds the long lists, `plots.py` makes the figures out of
plain data. Nothing here changes anything by itself: every change goes through `service`, `tokens` or `users`.
"""

from importlib.metadata import version

from flask import Flask, Response, make_response, render_template, request
from flask.sessions import SecureCookieSessionInterface
from flask_admin import Admin
from flask_admin.theme import Bootstrap4Theme
from flask_wtf.csrf import CSRFError

from backend.config import Settings
from backend.usecases import dashboard
from backend.web.admin import login, pages, tables, words

PATH = "/admin"


class _Sessions(SecureCookieSessionInterface):
    def get_cookie_secure(self, app: Flask) -> bool:
        """As configured, and always where the request came over TLS."""
        return request.is_secure or super().get_cookie_secure(app)


def register(app: Flask, settings: Settings) -> None:
    """Add the page to the application."""
    app.config.update(
        SESSION_COOKIE_NAME="bso_session",
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Lax",
        # Browsers take such cookies from 127.0.0.1 without TLS, too. Who insists on an open server may have no TLS.
        SESSION_COOKIE_SECURE=not settings.insecure_open,
        PERMANENT_SESSION_LIFETIME=login.SESSION_S,
        SESSION_REFRESH_EACH_REQUEST=False,  # else an answer still under way would bring back a cookie just deleted
        WTF_CSRF_TIME_LIMIT=None,  # as long as the session
        PRICE_PER_KWH=settings.price_per_kwh,
        CURRENCY=settings.currency,
        GRAMS_CO2_PER_KWH=settings.grams_co2_per_kwh,
    )
    app.session_interface = _Sessions()
    login.manager.init_app(app)
    admin = Admin(
        app,
        name="lightning-bso",
        index_view=pages.OverviewPage(name="Overview", url=PATH),
        theme=Bootstrap4Theme(base_template="bso/layout.html"),
    )
    for view in (*tables.make(), *pages.make()):
        admin.add_view(view)
    app.register_blueprint(pages.assets)
    app.add_template_filter(words.amount)
    app.add_template_filter(words.moment)
    app.add_template_filter(words.duration)
    app.add_template_filter(dashboard.can_be_ended)
    known = {"plotly_version": version("plotly")}
    app.context_processor(lambda: known | {"who": login.current(), "has_login": login.is_needed()})

    @app.errorhandler(CSRFError)
    def forged(error: CSRFError) -> tuple[Response, int]:
        return error_page(400, f"{error.description} Go back, load the page anew, and try again."), 400


def is_asked() -> bool:
    """Whether the current request is for the admin page."""
    return request.path == PATH or request.path.startswith(f"{PATH}/")


def error_page(status: int, message: str) -> Response:
    """A page that says what went wrong."""
    return make_response(render_template("bso/error.html", status=status, message=message), status)
