"""The database: tables, queries, transactions and the schema's version.

`models` defines the tables. `store`, `accounts` and `audit_log` read and write rows, and `states` turns rows into the
data that `backend.core` decides on. Nothing here decides anything. Migrations are in `backend/migrations`.
"""
