"""The version of the database's schema: read, check and upgrade it.

The migrations live in `backend/migrations`, the tables in `models`.
"""

from datetime import UTC, datetime
from functools import cache

import flask_migrate
import structlog
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import update
from sqlalchemy.exc import ArgumentError, CompileError, DBAPIError, SQLAlchemyError
from sqlalchemy.schema import CreateTable

from .. import COMMAND
from ..config import DRIVERS
from ..errors import DatabaseUnavailable, DatabaseUnusable, SchemaOutdated
from . import faults
from .extensions import READ_ONLY, db, migrate
from .models import Secret
from .store import now
from .transactions import retrying_once

log = structlog.get_logger(__name__)

UPGRADE_COMMAND = f"{COMMAND} db upgrade"
MAX_CLOCK_ERROR_S = 600.0
"""More than a clock is ever wrong, and less than a time zone differs from UTC."""


def current_version() -> str | None:
    """Return the schema version of the database; None if the database is empty.

    Raises:
        DatabaseUnavailable: the database is unreachable.
    """
    try:
        return _read_version()
    except SQLAlchemyError as error:
        raise DatabaseUnavailable(faults.cause(error)) from error


def needed_version() -> str:
    """Return the schema version that this program requires."""
    return _versions()[0]


def upgrade() -> None:
    """Upgrade the schema to the required version. Several processes may call this at once.

    Raises:
        DatabaseUnusable: the upgrade failed; the text says why.
        SchemaOutdated: the schema is newer than this program.
    """
    try:
        _check_fit()
        version = _read_version()
        _check_known(version)
        if version != needed_version():
            flask_migrate.upgrade()
    except DBAPIError as error:
        where = db.engine.url.render_as_string(hide_password=True)
        raise DatabaseUnusable(f"{where}: {error.orig}; check the URL, and that it points to a database") from error


def check() -> None:
    """Check that the schema has the required version.

    Raises:
        SchemaOutdated: the schema has another version; the text says what to do.
        DatabaseUnavailable: the database is unreachable.
    """
    current, needed = current_version(), needed_version()
    _check_known(current)
    if current != needed:
        raise SchemaOutdated(
            f"the database's schema version is {current or 'empty'}, but this program requires {needed}. "
            f"Back up the database and run: {UPGRADE_COMMAND}"
        )


def is_usable() -> bool:
    """Whether a server of this version that is running can go on with the database's schema.

    A schema that this program does not know is newer. Each migration leaves the servers of the version before in work,
    so that an update can replace one server after the other (docs/server.md).

    Raises:
        DatabaseUnavailable: the database is unreachable.
    """
    current = current_version()
    return current == needed_version() or (current is not None and current not in _versions())


def check_writable() -> None:
    """Check that the database takes writes, with one that changes nothing. SQLite would wait for another writer.

    Raises:
        DatabaseUnavailable: it takes none.
    """
    if db.engine.dialect.name == "sqlite":
        return
    try:
        _write_nothing()
    except SQLAlchemyError as error:
        raise DatabaseUnavailable(faults.cause(error)) from error


@retrying_once.wraps
def _write_nothing() -> None:
    with db.engine.begin() as connection:
        connection.execute(update(Secret).where(Secret.name == "").values(value=""))


def prepare() -> None:
    """Prepare the database at startup: upgrade an SQLite file, check any other database.

    Raises:
        SchemaOutdated: a database other than SQLite has another schema version, or an SQLite file has a newer one.
        DatabaseUnusable: the SQLite file cannot be created, opened or upgraded, or the database does not fit.
        DatabaseUnavailable: the database is unreachable.
    """
    if db.engine.dialect.name == "sqlite":
        upgrade()
    else:
        try:
            _check_fit()
        except SQLAlchemyError as error:
            raise DatabaseUnavailable(faults.cause(error)) from error
        check()
    db.engine.dispose()  # processes forked from this one must not share its connections


@retrying_once.wraps
def _read_version() -> str | None:
    with db.engine.execution_options(**{READ_ONLY: True}).connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


@cache
def _versions() -> tuple[str, ...]:
    """Return the versions that this program knows, the newest first."""
    migrations = ScriptDirectory.from_config(migrate.get_config())
    migrations.get_current_head()  # raises if there are several
    return tuple(script.revision for script in migrations.walk_revisions())


def _check_fit() -> None:
    """Warn that a database or a driver is not tested, and check that it has what the server needs.

    Raises:
        DatabaseUnusable: it lacks something; the text says what.
    """
    if db.engine.dialect.name == "postgresql" and (encoding := _read_encoding()) != "UTF8":
        raise DatabaseUnusable(
            f"the database does not fit: its encoding is {encoding}, which lacks characters that ids and reasons may "
            "contain; create a database with ENCODING 'UTF8' TEMPLATE template0"
        )
    driver = db.engine.url.drivername
    if driver in DRIVERS.values():
        return
    log.warning("database_not_tested", driver=driver, tested=sorted(set(DRIVERS.values())))
    try:
        for table in db.metadata.sorted_tables:
            CreateTable(table).compile(dialect=db.engine.dialect)
        off_s = abs((_read_clock() - datetime.now(UTC).replace(tzinfo=None)).total_seconds())
    except (ArgumentError, CompileError) as error:  # for example, it has no isolation level READ COMMITTED
        raise DatabaseUnusable(f"the database does not fit: {error}") from error
    if off_s > MAX_CLOCK_ERROR_S:
        raise DatabaseUnusable("the database does not fit: its sessions do not have the time of UTC")


@retrying_once.wraps
def _read_encoding() -> str:
    with db.engine.connect() as connection:
        return str(connection.exec_driver_sql("SHOW server_encoding").scalar_one())


@retrying_once.wraps
def _read_clock() -> datetime:
    with db.engine.connect() as connection:
        return now(connection).replace(tzinfo=None)


def _check_known(version: str | None) -> None:
    if version is not None and version not in _versions():
        raise SchemaOutdated(
            f"the database's schema version is {version}, which this program does not know: a newer version of the "
            "program created it. Update the program"
        )
