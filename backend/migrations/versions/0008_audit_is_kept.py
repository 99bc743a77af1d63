"""The audit log refuses to be changed, on SQLite.

MySQL and MariaDB have accounts to withhold that from (docs/server.md), and let few accounts make triggers.

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
    # REPLACE deletes without a trigger's notice.
    "audit_is_not_replaced": "INSERT ON audit WHEN EXISTS (SELECT 1 FROM audit WHERE id = NEW.id)",
}


# Whoever makes the table anew in a later migration has to make these anew too: they go with the old one.
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
