"""The database's schema: which version it has, and bringing it to this one's."""

import flask_migrate
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.exc import DBAPIError

from backend.database.extensions import READ_ONLY, db, migrate
from backend.errors import DatabaseUnavailable, DatabaseUnusable, SchemaOutdated

UPGRADE_COMMAND = "python -m backend db upgrade"


def current_version() -> str | None:
    """The schema's version in the database, None of an empty one.

    Raises:
        DatabaseUnavailable: the database does not answer.
    """
    try:
        return _read_version()
    except DBAPIError as error:
        raise DatabaseUnavailable from error


def needed_version() -> str | None:
    """The schema's version that this program works with."""
    return _migrations().get_current_head()


def upgrade() -> None:
    """Bring the schema to the needed version. Safe when several processes try at once.

    Raises:
        DatabaseUnusable: it could not be done; the text says why.
        SchemaOutdated: the schema is newer than this program.
    """
    try:
        _check_known(_read_version())
        flask_migrate.upgrade()
    except DBAPIError as error:
        where = db.engine.url.render_as_string(hide_password=True)
        raise DatabaseUnusable(f"{where}: {error.orig}; check that it is a database, and the address right") from error


def check() -> None:
    """Make sure that the schema is the needed one.

    Raises:
        SchemaOutdated: it is another; the text names the command that mends it.
        DatabaseUnavailable: the database does not answer.
    """
    found, needed = current_version(), needed_version()
    _check_known(found)
    if found != needed:
        raise SchemaOutdated(
            f"the database's schema is {found or 'empty'}, this version needs {needed}. "
            f"Back the database up and run: {UPGRADE_COMMAND}"
        )


def prepare() -> None:
    """Make the database ready: upgrade the embedded one, check any other.

    Raises:
        SchemaOutdated: a database other than SQLite has another schema.
        DatabaseUnusable: the SQLite file cannot be made, opened or upgraded.
        DatabaseUnavailable: the database does not answer.
    """
    if db.engine.dialect.name == "sqlite":
        upgrade()
    else:
        check()
    db.engine.dispose()  # connections must not be shared with processes forked from this one


def _read_version() -> str | None:
    with db.engine.execution_options(**{READ_ONLY: True}).connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def _migrations() -> ScriptDirectory:
    return ScriptDirectory.from_config(migrate.get_config())


def _check_known(version: str | None) -> None:
    if version is not None and version not in {script.revision for script in _migrations().walk_revisions()}:
        raise SchemaOutdated(
            f"the database's schema is {version}, which this version does not know: a newer one has made it. "
            "Update the program"
        )
