"""Amounts of an invoice that are due, paid and taken from the balance; amounts of a credit note that were paid back;
and the reason why an invoice was voided, beside that of its hold.
"""

import sqlalchemy as sa
from alembic import op

revision = "0031"
down_revision = "0030"

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    for name in ("amount_due", "amount_paid", "balance_applied"):
        op.add_column("invoices", sa.Column(name, WHOLE, nullable=False, server_default="0"))
    op.add_column("invoices", sa.Column("voided_why", sa.Text))
    op.add_column("credit_notes", sa.Column("refunded", WHOLE, nullable=False, server_default="0"))
    # Stripe's own numbers come with the next event of an invoice; until then what follows from the rows holds.
    op.execute(
        "UPDATE credit_notes SET refunded = amount WHERE state = 'made' AND id IN (SELECT t.source"
        " FROM credit_transactions t JOIN credit_entries e ON e.seq = t.seq"
        " WHERE t.kind = 'credit_note' AND e.account = 'cash')"
    )
    left = (
        "total - COALESCE((SELECT SUM(amount - refunded) FROM credit_notes"
        " WHERE credit_notes.invoice = invoices.id AND credit_notes.state = 'made'), 0)"
    )
    op.execute(f"UPDATE invoices SET amount_due = {left} WHERE state IN ('open', 'uncollectible') AND total > 0")
    op.execute(f"UPDATE invoices SET amount_paid = {left} WHERE state = 'paid' AND total > 0")
    op.execute("UPDATE invoices SET voided_why = held_why, held_why = NULL WHERE state IN ('voiding', 'void')")


def downgrade() -> None:
    op.execute("UPDATE invoices SET held_why = voided_why WHERE voided_why IS NOT NULL")
    for name in ("amount_due", "amount_paid", "balance_applied", "voided_why"):
        op.drop_column("invoices", name)
    op.drop_column("credit_notes", "refunded")
