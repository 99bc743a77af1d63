"""Runs migrations on the application's database. Several processes may try at once: one does it, then the next."""

from hashlib import sha256

from alembic import context
from flask import current_app
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from backend.errors import DatabaseUnusable

LOCK_WAIT_S = 60

db = current_app.extensions["migrate"].db

# An engine of its own: without the application's time limit on a statement, which may be too short for an
# ALTER, and without a pool, so that the lock below is given up when the connection is closed.
with create_engine(db.engine.url, poolclass=NullPool).connect() as connection:
    sqlite = connection.dialect.name == "sqlite"
    if not sqlite:
        # DDL commits by itself on MySQL, so a named lock of this connection keeps others out.
        database = sha256((db.engine.url.database or "").encode()).hexdigest()[:16]
        lock = text("SELECT GET_LOCK(:name, :seconds)")
        if connection.scalar(lock, {"name": f"zeus_bso_{database}", "seconds": LOCK_WAIT_S}) != 1:
            raise DatabaseUnusable("another process is upgrading this database; wait for it and try again")
        connection.commit()
    else:
        # A batch migration drops a table and makes it anew; enforced, the foreign keys would take the rows of
        # other tables along. Has no effect within a transaction, so it comes before.
        connection.connection.driver_connection.execute("PRAGMA foreign_keys=OFF")
    context.configure(
        connection=connection,
        target_metadata=db.metadata,
        render_as_batch=sqlite,
        transactional_ddl=sqlite,
        compare_type=True,
    )
    with context.begin_transaction():
        context.run_migrations()
        if sqlite and (broken := connection.exec_driver_sql("PRAGMA foreign_key_check").all()):
            raise DatabaseUnusable(f"the migration would leave rows that refer to nothing: {broken[:5]}")
