"""The database: tables, queries, transactions and the schema's version.

`models` defines the tables. `store`, `accounts` and `audit_log` read and write rows, and `listing` searches them for
the admin page. `states` turns rows into the data that `backend.core` decides on. No decision is made here. Migrations
live in `backend/migrations`.
"""
