"""Transactions of the journal that are about no customer, and how invoices and credit notes were settled."""

import sqlalchemy as sa
from alembic import op

revision = "0032"
down_revision = "0031"

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    for table, name in (
        ("invoices", "paid_off_stripe"),
        ("credit_notes", "to_balance"),
        ("credit_notes", "off_stripe"),
    ):
        op.add_column(table, sa.Column(name, WHOLE, nullable=False, server_default="0"))
    connection = op.get_bind()
    if connection.dialect.name != "sqlite":
        op.alter_column("credit_transactions", "customer", nullable=True)
        return
    # As SQLite's documentation of ALTER TABLE says for a constraint that goes: the rows stay as they are, and the
    # journal may have many millions.
    version = connection.exec_driver_sql("PRAGMA schema_version").scalar_one()
    connection.exec_driver_sql("PRAGMA writable_schema = ON")
    connection.exec_driver_sql(
        "UPDATE sqlite_schema SET sql = replace(sql, 'customer TEXT NOT NULL', 'customer TEXT')"
        " WHERE type = 'table' AND name = 'credit_transactions'"
    )
    connection.exec_driver_sql(f"PRAGMA schema_version = {version + 1}")
    connection.exec_driver_sql("PRAGMA writable_schema = OFF")


def downgrade() -> None:
    # Bookings without a customer stay: the journal is chained, and the version before reads them.
    op.drop_column("invoices", "paid_off_stripe")
    op.drop_column("credit_notes", "to_balance")
    op.drop_column("credit_notes", "off_stripe")
