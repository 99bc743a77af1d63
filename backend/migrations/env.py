"""Runs migrations on the application's database. Several processes may try at once: one does it."""

from alembic import context
from flask import current_app
from sqlalchemy import text

LOCK_WAIT_S = 60

db = current_app.extensions["migrate"].db

with db.engine.connect() as connection:
    sqlite = connection.dialect.name == "sqlite"
    if not sqlite:
        # DDL commits by itself on MySQL, so a named lock of this connection keeps others out.
        taken = connection.execute(text(f"SELECT GET_LOCK('zeus_bso_migrations', {LOCK_WAIT_S})")).scalar()
        if taken != 1:
            raise RuntimeError("another process is upgrading this database; wait for it and try again")
        connection.commit()
    context.configure(
        connection=connection,
        target_metadata=db.metadata,
        render_as_batch=sqlite,
        transactional_ddl=sqlite,
        compare_type=True,
    )
    with context.begin_transaction():
        context.run_migrations()
