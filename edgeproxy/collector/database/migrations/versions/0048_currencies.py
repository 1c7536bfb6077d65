"""The currency of each transaction of the journal."""

import sqlalchemy as sa
from alembic import op
from alembic.util.exc import CommandError

revision = "0048"
down_revision = "0047"


def upgrade() -> None:
    op.add_column("credit_transactions", sa.Column("currency", sa.Text, nullable=False, server_default="usd"))


def downgrade() -> None:
    others = "SELECT count(*) FROM credit_transactions WHERE currency <> 'usd'"
    if op.get_bind().exec_driver_sql(others).scalar_one():
        raise CommandError("the journal has transactions in other currencies, which the version before would add up")
    op.drop_column("credit_transactions", "currency")
