"""The roles of a customer's contacts, and when each signed in last."""

import sqlalchemy as sa
from alembic import op

revision = "0054"
down_revision = "0053"

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.add_column("contacts", sa.Column("role", sa.Text, nullable=False, server_default="owner"))
    op.add_column("contacts", sa.Column("signed_in_at", WHOLE))
    op.add_column("sessions", sa.Column("contact_role", sa.Text))


def downgrade() -> None:
    op.drop_column("sessions", "contact_role")
    op.drop_column("contacts", "signed_in_at")
    op.drop_column("contacts", "role")
