"""The server: a Flask application over MySQL, MariaDB or SQLite.

A request goes down through `api` (HTTP), `service` or `queries` (one use case, one transaction), `store`
(rows) and comes to a decision in `core` (pure). Start reading at `service.py`.
"""
