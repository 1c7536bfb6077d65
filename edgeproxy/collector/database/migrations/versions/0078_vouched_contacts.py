"""From when on a contact may do what is sensitive; those of before may."""

import sqlalchemy as sa
from alembic import op

revision = "0078"
down_revision = "0077"

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.add_column("contacts", sa.Column("sensitive_from", WHOLE))


def downgrade() -> None:
    op.drop_column("contacts", "sensitive_from")
