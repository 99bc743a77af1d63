"""The application: settings, extensions, endpoints, errors and logs put together."""

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
from werkzeug.exceptions import HTTPException, UnprocessableEntity
from werkzeug.routing import PathConverter

from backend.config import Settings, load_settings, unknown_variables
from backend.database import schema
from backend.database.extensions import db, migrate
from backend.errors import InvalidField, ServiceError
from backend.usecases import users
from backend.web import admin, api, logs, metrics, security
from lightning_bso.wire import DOCUMENT_PATH, MAX_BODY_BYTES, ErrorAnswer, Fault

log = structlog.get_logger(__name__)

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class JsonRequest(Request):
    """A request whose body is JSON, whatever its Content-Type says or omits."""

    def get_json(self, force: bool = False, silent: bool = False, cache: bool = True) -> Any:
        """The body's text. flask-openapi3 hands text to pydantic, which parses and validates it in one go."""
        try:
            return self.get_data().decode("utf-8")
        except UnicodeDecodeError as error:
            raise UnprocessableEntity(f"the body is not UTF-8: {error.reason} at byte {error.start}") from None


class JobIdConverter(PathConverter):
    """A job's id in an address: like a path, but it may begin with a slash."""

    regex = ".+?"
    part_isolating = False


class BsoServer(OpenAPI):
    """The Flask application."""

    request_class = JsonRequest


def create_app(settings: Settings | None = None, *, prepare_database: bool = True) -> Flask:
    """Make the application; `gunicorn 'backend.app:create_app()'` serves it.

    Args:
        settings: read from the environment if None.
        prepare_database: upgrade the embedded database, or check that another one is up to date.

    Raises:
        SettingsError: settings from the environment are wrong.
        SchemaOutdated: the database must be upgraded first.
        DatabaseUnavailable: the database does not answer.
    """
    settings = settings or load_settings()
    logs.configure(settings.log_level, settings.log_format)
    for variable in unknown_variables():
        log.warning("unknown_setting", variable=variable)
    app = BsoServer(
        "backend",
        info=Info(
            title="lightning-bso",
            version=metadata.version("lightning-bso"),
            description="Batch sizes for recurring trainings.",
        ),
        security_schemes={"token": {"type": "http", "scheme": "bearer"}},
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
    )
    app.url_map.merge_slashes = False  # a job's id may hold several in a row
    app.url_map.converters["job_id"] = JobIdConverter
    db.init_app(app)
    migrate.init_app(app, db, directory=f"{app.root_path}/migrations")
    app.register_api(api.blueprint)
    _log_requests(app)  # before whatever may refuse a request
    CSRFProtect(app).exempt(api.blueprint)  # which knows no cookies
    admin.register(app, settings)
    security.protect(app, settings.trusted_proxies)
    app.add_url_rule(DOCUMENT_PATH, "openapi_document", lambda: app.api_doc)
    _answer_errors(app)
    if prepare_database:
        with app.app_context():
            schema.prepare()
            app.secret_key = users.session_key()
            db.engine.dispose()  # a connection must not be shared by the workers of gunicorn --preload
    return app


def _log_requests(app: Flask) -> None:
    @app.before_request
    def begin() -> None:
        given = request.headers.get("X-Request-ID", "")
        g.request_id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        g.began = time.perf_counter()
        structlog.contextvars.bind_contextvars(request_id=g.request_id)

    @app.after_request
    def end(response: Response) -> Response:
        response.headers["X-Request-ID"] = g.request_id
        seconds = time.perf_counter() - g.began
        if request.url_rule is not None:  # what nobody serves anybody may make up
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
    def forget(_error: BaseException | None) -> None:
        structlog.contextvars.clear_contextvars()


def _answer_errors(app: Flask) -> None:
    def answer(status: int, message: str, detail: list[Fault] | None = None) -> tuple[Response, int]:
        if admin.is_asked():
            return admin.error_page(status, message), status
        return jsonify(ErrorAnswer(message=message, detail=detail).model_dump(exclude_none=True)), status

    @app.errorhandler(ServiceError)
    def refused(error: ServiceError) -> tuple[Response, int]:
        detail = None
        if isinstance(error, InvalidField):
            detail = [Fault(loc=[error.field], msg=error.problem, type="invalid_field")]
        response, status = answer(error.status, str(error), detail)
        if status == 401:
            response.headers["WWW-Authenticate"] = 'Bearer realm="lightning-bso", Basic realm="lightning-bso"'
        return response, status

    @app.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> Response | tuple[Response, int]:
        if error.response is not None:  # made by `api.validation_failed`
            return error.get_response()  # type: ignore[return-value]  # a werkzeug response, which Flask takes
        if error.code == 413:
            return answer(413, f"the body is larger than {MAX_BODY_BYTES} bytes; no request needs as much")
        return answer(error.code or 500, error.description or error.name)

    @app.errorhandler(Exception)
    def unexpected(error: Exception) -> tuple[Response, int]:
        log.exception("unexpected_error", path=request.path)
        return answer(500, f"the server failed; its log says why, at request {g.request_id}")
