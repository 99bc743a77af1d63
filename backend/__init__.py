"""The server: a Flask application over SQLite, MySQL, MariaDB or PostgreSQL.

Layers, from the top down: `web` (HTTP), `usecases` (one call, one transaction), `database` (rows) and `core` (the
decisions, as pure functions). `app` builds the application, `cli` starts it. Start reading at `usecases/runs.py`.

In the wheel this package is called `lightning_bso_server`, so that nobody's `backend` is in its way. So the modules
import each other relatively. A process uses one of the two names: both would be two of everything.
"""

COMMAND = "python -m backend" if __name__ == "backend" else "lightning-bso server"
"""How a user calls the command line."""
