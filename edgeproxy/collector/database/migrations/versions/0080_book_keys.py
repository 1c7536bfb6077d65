"""The keys of the books, one for each calendar year."""

import sqlalchemy as sa
from alembic import op
from alembic.util.exc import CommandError

revision = "0080"
down_revision = "0079"

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "book_keys",
        sa.Column("year", WHOLE, primary_key=True, autoincrement=False),
        sa.Column("encryption_key", WHOLE, sa.ForeignKey("encryption_keys.id"), nullable=False),
        sa.Column("wrapped", sa.LargeBinary, nullable=False),
        sqlite_strict=True,
    )


def downgrade() -> None:
    if op.get_bind().exec_driver_sql("SELECT count(*) FROM book_keys").scalar_one():
        raise CommandError("invoices are encrypted, which the version before could not read")
    op.drop_table("book_keys")
