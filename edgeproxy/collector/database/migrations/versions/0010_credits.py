"""Prepaid credits: the journal, its head, and what follows from it."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "credit_transactions",
        sa.Column("seq", WHOLE, primary_key=True, autoincrement=False),
        sa.Column("at", WHOLE, nullable=False),
        sa.Column("customer", sa.Text, sa.ForeignKey("customers.id"), nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("original", sa.Text, nullable=False),
        sa.Column("slice", WHOLE, nullable=False),
        sa.Column("amount", WHOLE, nullable=False),
        sa.Column("details", sa.Text, nullable=False),
        sa.Column("hash", sa.Text, nullable=False),
        sa.UniqueConstraint("kind", "source", name="credit_transactions_source_key"),
        sqlite_strict=True,
    )
    op.create_index("credit_transactions_customer", "credit_transactions", ["customer", "at"])
    op.create_index("credit_transactions_at", "credit_transactions", ["at"])
    op.create_index("credit_transactions_slice", "credit_transactions", ["kind", "slice", "customer"])
    op.create_index("credit_transactions_original", "credit_transactions", ["original", "kind"])
    op.create_table(
        "credit_entries",
        sa.Column("seq", WHOLE, primary_key=True, autoincrement=False),
        sa.Column("position", WHOLE, primary_key=True, autoincrement=False),
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("amount", WHOLE, nullable=False),
        sa.Column("grant_id", sa.Text, nullable=False),
        sa.Column("meter", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sqlite_with_rowid=False,
        sqlite_strict=True,
    )
    op.create_index("credit_entries_grant", "credit_entries", ["grant_id"])
    head = op.create_table(
        "credit_head",
        sa.Column("seq", WHOLE, nullable=False),
        sa.Column("hash", sa.Text, nullable=False),
        sa.Column("at", WHOLE, nullable=False),
        sa.Column("slice", WHOLE, nullable=False),
        sqlite_strict=True,
    )
    op.bulk_insert(head, [{"seq": 0, "hash": "0" * 64, "at": 0, "slice": 0}])
    op.create_table(
        "credit_grants",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("customer", sa.Text, sa.ForeignKey("customers.id"), nullable=False),
        sa.Column("number", WHOLE, nullable=False),
        sa.Column("rest", WHOLE, nullable=False),
        sa.Column("expires_at", WHOLE),
        sa.Column("paid", WHOLE, nullable=False),
        sa.Column("tax", WHOLE, nullable=False),
        sa.Column("returned", WHOLE, nullable=False),
        sa.Column("payment", sa.Text),
        sa.UniqueConstraint("payment", name="credit_grants_payment_key"),
        sqlite_strict=True,
    )
    op.create_index("credit_grants_customer", "credit_grants", ["customer"])
    op.create_index("credit_grants_expires_at", "credit_grants", ["expires_at"])
    op.create_table(
        "credit_balances",
        sa.Column("customer", sa.Text, sa.ForeignKey("customers.id"), primary_key=True),
        sa.Column("balance", WHOLE, nullable=False),
        sa.Column("overdraft", WHOLE, nullable=False),
        sa.Column("since", WHOLE, nullable=False),
        sqlite_strict=True,
    )
