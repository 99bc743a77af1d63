"""The Flask application: `create_app` wires settings, extensions, endpoints, error answers and logs together.

No endpoint and no rule lives here. Next: `backend.web.api` has the endpoints, `backend.config` the settings.
"""

import re
import secrets
import time
from importlib import metadata
from typing import Any

import structlog
from flask import Flask, Request, Response, g, jsonify, request
from flask_openapi3.models.info import Info
from flask_openapi3.openapi import OpenAPI
from flask_wtf.csrf import CSRFProtect
from werkzeug.exceptions import HTTPException, MethodNotAllowed, UnprocessableEntity
from werkzeug.routing import PathConverter

from lightning_bso.wire import DOCUMENT_PATH, MAX_BODY_BYTES, ErrorAnswer, Fault

from .config import Settings, load_settings
from .database import schema
from .database.extensions import db, migrate
from .errors import InvalidField, ServiceError
from .usecases import users
from .web import admin, api, logs, metrics, security

log = structlog.get_logger(__name__)

RETRY_AFTER_S = 5
"""Seconds after which a caller may try again while the database is unavailable."""

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class JsonRequest(Request):
    """A request whose body is read as JSON, with any Content-Type or none."""

    def get_json(self, force: bool = False, silent: bool = False, cache: bool = True) -> Any:
        """Return the body as text. flask-openapi3 passes the text to pydantic, which parses and validates it."""
        try:
            return self.get_data().decode("utf-8")
        except UnicodeDecodeError as error:
            raise UnprocessableEntity(f"the body is not UTF-8: {error.reason} at byte {error.start}") from None


class JobIdConverter(PathConverter):
    """A job's id in a URL: like a path, but it may begin with a slash."""

    regex = ".+?"
    part_isolating = False


class BsoServer(OpenAPI):
    """The Flask application."""

    request_class = JsonRequest

    @property
    def api_doc(self) -> dict[str, Any]:
        """The OpenAPI document. It names the path that a proxy serves this server under, so that it can be tried."""
        return super().api_doc | {"servers": [{"url": request.script_root or "/"}]}


def create_app(settings: Settings | None = None, *, prepare_database: bool = True) -> Flask:
    """Create the application. `backend.web.serving` serves it.

    Args:
        settings: the settings; None: read them from the environment.
        prepare_database: whether to upgrade an SQLite file, or to check the schema of any other database.

    Raises:
        SettingsError: settings from the environment are invalid.
        SchemaOutdated: the database must be upgraded first.
        DatabaseUnusable: the SQLite file cannot be created, opened or upgraded.
        DatabaseUnavailable: the database is unreachable.
    """
    settings = settings or load_settings()
    logs.configure(settings.log_level, settings.log_format)
    app = BsoServer(
        __package__,
        info=Info(
            title="lightning-bso",
            version=metadata.version("lightning-bso"),
            description="Batch sizes for recurring trainings.",
        ),
        security_schemes={
            "token": {"type": "http", "scheme": "bearer"},
            "password": {"type": "http", "scheme": "basic", "description": "The token is the password."},
        },
        validation_error_model=ErrorAnswer,
        validation_error_callback=api.validation_failed,
    )
    app.config.update(
        SQLALCHEMY_DATABASE_URI=settings.database,
        SQLALCHEMY_ENGINE_OPTIONS=settings.engine_options,
        SQLALCHEMY_ECHO=settings.echo_sql,
        MAX_CONTENT_LENGTH=MAX_BODY_BYTES,
        LEASE_S=settings.lease_s,
        INSECURE_OPEN=settings.insecure_open,
        AUTH_CACHE_S=settings.auth_cache_s,
    )
    app.url_map.merge_slashes = False  # a job's id may contain several slashes in a row
    app.url_map.converters["job_id"] = JobIdConverter
    db.init_app(app)
    migrate.init_app(app, db, directory=f"{app.root_path}/migrations")
    app.register_api(api.blueprint)
    app.register_api(api.public_blueprint)
    _log_requests(app)  # first, so that refused requests are logged too
    CSRFProtect(app).exempt(api.blueprint)  # the API ignores cookies
    admin.register(app, settings)
    security.protect(app, settings.trusted_proxies)
    app.add_url_rule(DOCUMENT_PATH, "openapi_document", lambda: app.api_doc)
    _answer_errors(app)
    if prepare_database:
        with app.app_context():
            schema.prepare()
            app.secret_key = users.session_key()
            db.engine.dispose()  # a forked worker must not share a connection
    return app


def _log_requests(app: Flask) -> None:
    @app.before_request
    def begin() -> None:
        callers_id = request.headers.get("X-Request-ID", "")
        g.request_id = callers_id if _REQUEST_ID.fullmatch(callers_id) else secrets.token_hex(8)
        g.start = time.perf_counter()
        structlog.contextvars.bind_contextvars(request_id=g.request_id)

    @app.after_request
    def end(response: Response) -> Response:
        response.headers["X-Request-ID"] = g.request_id
        seconds = time.perf_counter() - g.start
        if request.url_rule is not None:  # else a caller could add a label for every path it invents
            metrics.observe(request.method, str(request.url_rule), response.status_code, seconds)
        log.info(
            "request",
            method=request.method,
            path=request.path,
            status=response.status_code,
            ms=round(seconds * 1000, 1),
        )
        return response

    @app.teardown_request
    def clear(_error: BaseException | None) -> None:
        structlog.contextvars.clear_contextvars()


def _answer_errors(app: Flask) -> None:
    def answer(status: int, message: str, detail: list[Fault] | None = None) -> tuple[Response, int]:
        if admin.is_admin_request():
            return admin.error_page(status, message), status
        return jsonify(ErrorAnswer(message=message, detail=detail).model_dump(exclude_none=True)), status

    @app.errorhandler(ServiceError)
    def refused(error: ServiceError) -> tuple[Response, int]:
        detail = None
        if isinstance(error, InvalidField):
            detail = [Fault(loc=[error.field], msg=error.problem, type="invalid_field")]
        response, status = answer(error.status, str(error), detail)
        if status == 503:
            response.headers["Retry-After"] = str(RETRY_AFTER_S)
        if status == 401:
            response.headers["WWW-Authenticate"] = 'Bearer realm="lightning-bso", Basic realm="lightning-bso"'
        return response, status

    @app.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> Response | tuple[Response, int]:
        if error.response is not None:  # from `api.validation_failed`
            return error.get_response()  # type: ignore[return-value]  # Flask accepts a werkzeug response
        if error.code == 413:
            return answer(413, f"the body is larger than {MAX_BODY_BYTES} bytes; send a smaller one")
        response, status = answer(error.code or 500, error.description or error.name)
        if isinstance(error, MethodNotAllowed) and error.valid_methods is not None:
            response.headers["Allow"] = ", ".join(sorted(error.valid_methods))
        return response, status

    @app.errorhandler(Exception)
    def unexpected(error: Exception) -> tuple[Response, int]:
        log.exception("unexpected_error", path=request.path)
        return answer(500, f"the server failed; look in its log for request_id {g.request_id}")
