"""The settings of the server: one frozen object, read once when the application is created.

A command-line option overrides an environment variable, which overrides a line of `.env` in the current folder. That
overrides a file with the variable's name in `SECRETS_FOLDER`.
docs/server.md lists all settings. `backend.app` uses them.
"""

import ipaddress
import os
from pathlib import Path
from typing import Annotated, Any, Literal

from dotenv import dotenv_values
from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

ENV_PREFIX = "ZEUS_BSO_"
MAX_LEASE_S = 366 * 24 * 3600.0
MAX_AUTH_CACHE_S = 300.0
CONNECT_TIMEOUT_S = 10
"""Seconds for which a call waits for a new connection to the database."""
POOL_TIMEOUT_S = 5
"""Seconds for which a call waits for a free connection to the database."""
LOCK_TIMEOUT_S = 10
"""Seconds for which a statement waits for a lock. SQLite has its own timeout."""
ANSWER_TIMEOUT_S = 30
"""Seconds for which a call waits for the answer to a statement."""
DRIVERS = {
    "sqlite": "sqlite",
    "sqlite+pysqlite": "sqlite",
    "mysql": "mysql+pymysql",
    "mariadb": "mariadb+pymysql",
    "postgresql": "postgresql+psycopg",
}
"""The tested drivers, each with the name that a URL may have instead."""
_UNFIT = {
    "mssql": "its unique constraints take NULL only once",
    "oracle": "it stores an empty text as NULL",
}
"""Why a database can't be used, whatever its driver."""
SECRETS_FOLDER = Path("/run/secrets")
"""Where Docker and Kubernetes put files with secrets. `ZEUS_BSO_SECRETS_DIR` names another folder."""


class SettingsError(Exception):
    """Raised when settings are invalid; the text names all of them."""


class Settings(BaseSettings):
    """Settings of the server. The environment variable of a setting is `ZEUS_BSO_` and its name in upper case."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_file=".env", env_ignore_empty=True, extra="ignore", frozen=True
    )

    database_url: Annotated[str, Field(repr=False)] = "sqlite:///zeus_bso.db"
    """`sqlite:///FILE` (relative to the current folder), `mysql://…`, `mariadb://…` or `postgresql://…`. A URL of
    another database or driver that SQLAlchemy knows is tried, with a warning."""
    db_user: str | None = None
    """User name for a `database_url` without one."""
    db_password: SecretStr | None = None
    """Password for a `database_url` without one."""
    root_password: SecretStr | None = None
    """Root password of the database container. The server does not use it."""
    server_port: Annotated[int, Field(ge=0, le=65535)] = 8000
    """Port to listen on; 0: a free port."""
    lease_s: Annotated[float, Field(gt=0, le=MAX_LEASE_S, allow_inf_nan=False)] = 3600.0
    """Seconds until the lease of a run expires, counted from the run's last call. A run whose lease expired is lost."""
    auth_cache_s: Annotated[float, Field(ge=0, le=MAX_AUTH_CACHE_S, allow_inf_nan=False)] = 5.0
    """Seconds for which a process remembers valid tokens, and whether there are tokens or users. 0: it asks the
    database at every call. A token that was revoked elsewhere, or has expired, works for up to this long."""
    trusted_proxies: str = ""
    """Addresses or networks of proxies whose X-Forwarded-* headers are trusted, separated by commas."""
    auth_header: str | None = None
    """Header in which the trusted proxies name the user whom they have logged in, for the admin page; None: none.

    Letters and digits alone. WSGI does not tell `X-User` from `X_User`, and a proxy that sets the one may let a
    caller's other one pass.
    """
    auth_default_role: Literal["viewer", "operator"] | None = None
    """Role of a user whom `auth_header` names and this server does not know; None: such a user is refused."""
    price_per_kwh: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """Price of energy, for the admin page; None: the page shows no prices."""
    currency: str = "EUR"
    """Currency of `price_per_kwh`."""
    grams_co2_per_kwh: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """Carbon intensity of the energy, for the admin page; None: the page shows no emissions."""
    insecure_open: bool = False
    """Answer callers on other machines even though there is no access token."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = "INFO"
    """Least severe level that is logged."""
    log_format: Literal["auto", "json", "text"] = "auto"
    """`auto`: text on a terminal, else one JSON object per line."""
    echo_sql: bool = False
    """Log every SQL statement."""

    @field_validator("log_level", mode="before")
    @classmethod
    def _upper_case(cls, value: Any) -> Any:
        return value.upper() if isinstance(value, str) else value

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: str) -> str:
        try:
            for part in filter(None, map(str.strip, value.split(","))):
                ipaddress.ip_network(part)
        except ValueError as error:
            raise ValueError(f"{error}; list addresses or networks, such as 10.0.0.0/8, separated by commas") from None
        return value

    @model_validator(mode="after")
    def _proxies_log_in(self) -> "Settings":
        if self.auth_header is not None and not self.trusted_proxies.strip(" ,"):
            raise ValueError(f"{ENV_PREFIX}AUTH_HEADER needs {ENV_PREFIX}TRUSTED_PROXIES, which alone may set it")
        if self.auth_default_role is not None and self.auth_header is None:
            raise ValueError(f"{ENV_PREFIX}AUTH_DEFAULT_ROLE has no meaning without {ENV_PREFIX}AUTH_HEADER")
        return self

    @field_validator("auth_header")
    @classmethod
    def _cannot_be_forged(cls, value: str | None) -> str | None:
        if value is not None and not (value.isascii() and value.isalnum()):
            raise ValueError(
                "may have letters and digits alone, such as RemoteUser: a caller's X_User, which a proxy may let pass, "
                "would be read as X-User"
            )
        return value

    @field_validator("database_url")
    @classmethod
    def _usable(cls, value: str) -> str:
        try:
            url = _with_driver(make_url(value))
        except ArgumentError:
            raise ValueError("is not a database URL; an example: mysql+pymysql://user:password@host/zeus") from None
        if url.get_backend_name() in _UNFIT:
            raise ValueError(f"names a database that does not fit: {_UNFIT[url.get_backend_name()]}")
        try:
            dialect = url.get_dialect()
            if dialect.is_async:
                raise ValueError(f"has the driver {url.drivername!r}, which is asynchronous; use one that is not")
            dialect.import_dbapi()
        except NoSuchModuleError:
            raise ValueError(f"has the driver {url.drivername!r}, which SQLAlchemy does not know") from None
        except ImportError as error:
            extra = next((extra for extra in ("mysql", "postgresql") if DRIVERS[extra] == url.drivername), None)
            how = f"pip install 'lightning-bso[{extra}]'" if extra else "install its package"
            raise ValueError(f"has the driver {url.drivername!r}, which is not installed ({error}); {how}") from None
        if dialect.name == "sqlite" and url.database in (None, "", ":memory:"):
            raise ValueError("must name a file, for example sqlite:///zeus_bso.db")
        return value

    @property
    def database(self) -> URL:
        """The database's URL with its driver and its credentials. The path of an SQLite file is absolute."""
        url = _with_driver(make_url(self.database_url))
        if url.get_backend_name() == "sqlite":
            return url.set(database=str(Path(url.database or "").absolute()))
        if url.username is None and self.db_user is not None:
            url = url.set(username=self.db_user)
        if url.password is None and self.db_password is not None:
            url = url.set(password=self.db_password.get_secret_value())
        return url

    @property
    def engine_options(self) -> dict[str, Any]:
        """SQLAlchemy's options for the database. docs/decisions.md explains the isolation level and locking."""
        options: dict[str, Any] = {"pool_timeout": POOL_TIMEOUT_S}
        url = self.database
        if url.get_backend_name() == "sqlite":
            return options
        options |= {"isolation_level": "READ COMMITTED", "pool_recycle": 1800}
        if url.drivername in (DRIVERS["mysql"], DRIVERS["mariadb"]):
            options["pool_reset_on_return"] = None  # `extensions` rolls back where it is needed
            options["connect_args"] = {
                "charset": "utf8mb4",
                "connect_timeout": CONNECT_TIMEOUT_S,
                "read_timeout": ANSWER_TIMEOUT_S,
                "init_command": f"SET SESSION innodb_lock_wait_timeout = {LOCK_TIMEOUT_S}",
            }
        if url.drivername == DRIVERS["postgresql"]:
            limits = f"SET lock_timeout = '{LOCK_TIMEOUT_S}s'; SET statement_timeout = '{ANSWER_TIMEOUT_S}s'"
            options["connect_args"] = {
                "connect_timeout": CONNECT_TIMEOUT_S,
                "init_command": limits,  # of `database.postgresql`
                # A machine that has gone away ends no connection. These find it, in ANSWER_TIMEOUT_S or less.
                "keepalives_idle": 10,
                "keepalives_interval": 5,
                "keepalives_count": 4,
                "tcp_user_timeout": ANSWER_TIMEOUT_S * 1000,
            }
        return options


def _with_driver(url: URL) -> URL:
    """Name the driver in a URL that names none."""
    return url.set(drivername=DRIVERS.get(url.drivername, url.drivername))


_SECRETS_DIR = ENV_PREFIX + "SECRETS_DIR"
CLIENT_VARIABLES = {
    ENV_PREFIX + name
    for name in ("SERVER_URL", "TOKEN", "JOB", "AUTO", "AUTO_INCLUDE", "AUTO_EXCLUDE", "AUTO_DESCRIBE")
}
"""What a training on the same machine reads."""


def unknown_variables() -> list[str]:
    """List variables of the environment and `.env` that look like settings but are not: most likely misspelt."""
    known = {ENV_PREFIX + name.upper() for name in Settings.model_fields} | CLIENT_VARIABLES | {_SECRETS_DIR}
    variables = {name.upper() for name in (*os.environ, *dotenv_values(".env"))}
    return sorted(name for name in variables if name.startswith(ENV_PREFIX) and name not in known)


def _variable(location: tuple[int | str, ...]) -> str:
    """The beginning of a message about a setting. One about several settings names them itself."""
    return f"{ENV_PREFIX}{'.'.join(map(str, location)).upper()}: " if location else ""


def load_settings(**overrides: Any) -> Settings:
    """Read the settings.

    Args:
        **overrides: values that override the environment; None is ignored.

    Raises:
        SettingsError: settings are invalid; the text names all of them.
    """
    named = os.environ.get(_SECRETS_DIR)
    secrets = Path(named or SECRETS_FOLDER)
    if named and not secrets.is_dir():
        raise SettingsError(f"{_SECRETS_DIR} names the folder {named!r}, which does not exist; correct or unset it")
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        return Settings(_secrets_dir=secrets if secrets.is_dir() else None, **given)
    except ValidationError as error:
        faults = [
            f"  {_variable(fault['loc'])}{fault['msg'].removeprefix('Value error, ')}"
            for fault in error.errors(include_input=False, include_url=False)
        ]
        raise SettingsError("\n".join(["these settings are invalid:", *faults])) from None
