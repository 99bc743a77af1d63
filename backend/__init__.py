"""The server: a Flask application over MySQL, MariaDB or SQLite.

Layers, from the top down: `web` (HTTP), `usecases` (one call, one transaction), `database` (rows) and `core` (the
decisions, as pure functions). `app` builds the application, `cli` starts it. Start reading at `usecases/runs.py`.
"""
