"""Which customers at Stripe have another e-mail address here by now."""

import sqlalchemy as sa
from alembic import op

revision = "0069"
down_revision = "0068"

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.add_column("billing_customers", sa.Column("email_changed_at", WHOLE))


def downgrade() -> None:
    op.drop_column("billing_customers", "email_changed_at")
