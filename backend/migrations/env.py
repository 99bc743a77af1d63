"""Run the migrations on the application's database. If several processes start this at once, they run one by one.

Each migration lives in `versions`. `backend.database.schema` starts the upgrade.
"""

from hashlib import sha256
from importlib import import_module

from alembic import context
from flask import current_app
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

LOCK_WAIT_S = 60
LOCK_NOT_AVAILABLE = "55P03"
UNDER_WAY = "another process is upgrading this database; wait until it ends, then retry"

DatabaseUnusable = import_module(".errors", current_app.import_name).DatabaseUnusable

db = current_app.extensions["migrate"].db

# A separate engine. It has no time limit on a statement, because the application's limit may be too short for an ALTER.
# It has no pool, so that closing the connection releases the lock below.
arguments = current_app.config["SQLALCHEMY_ENGINE_OPTIONS"].get("connect_args", {})
arguments = {name: value for name, value in arguments.items() if name not in ("read_timeout", "init_command")}
with create_engine(db.engine.url, poolclass=NullPool, connect_args=arguments).connect() as connection:
    sqlite = connection.dialect.name == "sqlite"
    if connection.dialect.name in ("mysql", "mariadb"):
        # DDL commits automatically, so a transaction cannot keep other processes out. A named lock does.
        database = sha256((db.engine.url.database or "").encode()).hexdigest()[:16]
        lock = text("SELECT GET_LOCK(:name, :seconds)")
        if connection.scalar(lock, {"name": f"zeus_bso_{database}", "seconds": LOCK_WAIT_S}) != 1:
            raise DatabaseUnusable(UNDER_WAY)
        connection.commit()
    elif connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SET lock_timeout = '{LOCK_WAIT_S}s'")
        try:
            connection.execute(text("SELECT pg_advisory_lock(hashtext('zeus_bso'))"))  # of this database alone
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) != LOCK_NOT_AVAILABLE:
                raise
            raise DatabaseUnusable(UNDER_WAY) from error
        connection.commit()
    elif sqlite:
        # A batch migration drops a table and creates it again. With foreign keys enforced, the drop would delete rows
        # of other tables. This pragma has no effect inside a transaction, so it runs before.
        connection.connection.driver_connection.execute("PRAGMA foreign_keys=OFF")
    context.configure(
        connection=connection,
        target_metadata=db.metadata,
        render_as_batch=sqlite,
        transactional_ddl=sqlite or None,  # None: if the database has it
        compare_type=True,
    )
    with context.begin_transaction():
        context.run_migrations()
        if sqlite and (broken := connection.exec_driver_sql("PRAGMA foreign_key_check").all()):
            raise DatabaseUnusable(f"the migration would leave rows with broken foreign keys: {broken[:5]}")
