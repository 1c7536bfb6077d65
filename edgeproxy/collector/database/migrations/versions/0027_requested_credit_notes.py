"""A credit note that Stripe has not answered for yet is `requested`; it was `asked`."""

from alembic import op

revision = "0027"
down_revision = "0026"


def upgrade() -> None:
    op.execute("UPDATE credit_notes SET state = 'requested' WHERE state = 'asked'")
