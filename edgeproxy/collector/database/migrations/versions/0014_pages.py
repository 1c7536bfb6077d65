"""Pages: who may sign in and has, how regions were, incidents; customers found by how a key begins."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "contacts",
        sa.Column("email", sa.Text, primary_key=True),
        sa.Column("customer", sa.Text, primary_key=True),
        sqlite_strict=True,
    )
    op.create_index("contacts_customer", "contacts", ["customer"])
    op.create_table(
        "sign_in_links",
        sa.Column("sha256", sa.Text, primary_key=True),
        sa.Column("label", sa.Text, nullable=False),
        sa.Column("customer", sa.Text),
        sa.Column("ends_at", WHOLE, nullable=False),
        sqlite_strict=True,
    )
    op.create_index("sign_in_links_ends_at", "sign_in_links", ["ends_at"])
    op.create_index("sign_in_links_label", "sign_in_links", ["label"])
    op.create_table(
        "sessions",
        sa.Column("sha256", sa.Text, primary_key=True),
        sa.Column("label", sa.Text, nullable=False),
        sa.Column("roles", sa.Text, nullable=False),
        sa.Column("customer", sa.Text),
        sa.Column("factor_at", WHOLE),
        sa.Column("created_at", WHOLE, nullable=False),
        sa.Column("seen_at", WHOLE, nullable=False),
        sqlite_strict=True,
    )
    op.create_index("sessions_created_at", "sessions", ["created_at"])
    op.create_index("sessions_label", "sessions", ["label"])
    op.create_table(
        "checks",
        sa.Column("region", sa.Text, primary_key=True),
        sa.Column("day", WHOLE, primary_key=True, autoincrement=False),
        sa.Column("result", sa.Text, primary_key=True),
        sa.Column("count", WHOLE, nullable=False),
        sqlite_strict=True,
    )
    op.create_table(
        "incidents",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("severity", sa.Text, nullable=False),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("regions", sa.Text, nullable=False),
        sa.Column("began_at", WHOLE, nullable=False),
        sa.Column("ended_at", WHOLE),
        sqlite_strict=True,
    )
    op.create_index("incidents_began_at", "incidents", ["began_at"])
    op.create_table(
        "incident_updates",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("incident", sa.Text, nullable=False),
        sa.Column("at", WHOLE, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sqlite_strict=True,
    )
    op.create_index("incident_updates_incident", "incident_updates", ["incident", "id"])
    # In the order of the characters, by which what begins with a text is found.
    collation = ' COLLATE "C"' if op.get_bind().dialect.name == "postgresql" else ""
    op.execute(f"CREATE INDEX keys_start ON keys (start{collation})")
    if collation:
        op.execute(f"CREATE INDEX customers_name_begins ON customers (name{collation})")
