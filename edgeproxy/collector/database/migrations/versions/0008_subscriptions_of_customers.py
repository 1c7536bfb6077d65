"""The subscriptions of a customer are found by an index, ended ones too: pages rate usage by them."""

from alembic import op

revision = "0008"
down_revision = "0007"

INDEX, TABLE = "subscriptions_customer", "subscriptions"


def upgrade() -> None:
    # The baseline makes the indexes of today. So a database of revision 0001 may have it already.
    op.create_index(INDEX, TABLE, ["customer"], if_not_exists=True)


def downgrade() -> None:
    op.drop_index(INDEX, TABLE)
