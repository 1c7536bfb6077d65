"""How far details of the journal of credits are cleared, and the hash of the chain of what is left there."""

import sqlalchemy as sa
from alembic import op

revision = "0072"
down_revision = "0071"

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.add_column("credit_head", sa.Column("cleared_seq", WHOLE, nullable=False, server_default="0"))
    op.add_column("credit_head", sa.Column("cleared_hash", sa.Text, nullable=False, server_default="0" * 64))


def downgrade() -> None:
    op.drop_column("credit_head", "cleared_seq")
    op.drop_column("credit_head", "cleared_hash")
