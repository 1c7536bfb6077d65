"""Indexes by which pages and jobs find their few rows among millions."""

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"

INDEXES = (
    ("audit_actor", "audit", ("actor", "seq")),
    ("audit_action", "audit", ("action", "seq")),
    ("audit_target", "audit", ("target", "seq")),
    ("invoices_state_id", "invoices", ("state", "id")),
    ("alerts_kind", "alerts", ("kind", "at")),
    ("rated_charged_at", "rated", ("charged_at",)),
)


def upgrade() -> None:
    for name, table, columns in INDEXES:
        op.create_index(name, table, list(columns))
    for column in ("deleting_since", "rotate_every"):
        there = sa.text(f"{column} IS NOT NULL")
        op.create_index(f"customers_{column}", "customers", [column], sqlite_where=there, postgresql_where=there)
