"""Triggers that refuse changes to the audit log, on SQLite.

On a database with accounts, the account's privileges protect the log (docs/server.md).

Revision ID: 0008
Revises: 0007
"""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

TRIGGERS = {
    "audit_is_not_changed": "UPDATE ON audit",
    "audit_is_not_deleted": "DELETE ON audit",
    # REPLACE deletes rows without firing the delete trigger.
    "audit_is_not_replaced": "INSERT ON audit WHEN EXISTS (SELECT 1 FROM audit WHERE id = NEW.id)",
}


# A later migration that recreates the table must recreate these triggers too. They are dropped with the old table.
def upgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        for name, deed in TRIGGERS.items():
            op.execute(
                f"CREATE TRIGGER IF NOT EXISTS {name} BEFORE {deed} "
                "BEGIN SELECT RAISE(ABORT, 'the audit log is only added to'); END"
            )


def downgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        for name in TRIGGERS:
            op.execute(f"DROP TRIGGER IF EXISTS {name}")
