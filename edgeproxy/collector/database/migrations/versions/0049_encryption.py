"""Keys, and columns for what is encrypted and looked up all the same."""

import sqlalchemy as sa
from alembic import op
from alembic.util.exc import CommandError

revision = "0049"
down_revision = "0048"

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "encryption_keys",
        sa.Column("id", WHOLE, primary_key=True, autoincrement=False),
        sa.Column("wrapped", sa.LargeBinary, nullable=False),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("created_at", WHOLE, nullable=False),
        sqlite_strict=True,
    )
    op.create_table(
        "data_keys",
        sa.Column("customer", sa.Text, primary_key=True),
        sa.Column("encryption_key", WHOLE, sa.ForeignKey("encryption_keys.id"), nullable=False),
        sa.Column("wrapped", sa.LargeBinary, nullable=False),
        sqlite_strict=True,
    )
    op.create_index("data_keys_encryption_key", "data_keys", ["encryption_key", "customer"])
    op.add_column("customers", sa.Column("external_id_sealed", sa.Text))
    op.add_column("contacts", sa.Column("email_sealed", sa.Text))


def downgrade() -> None:
    if op.get_bind().exec_driver_sql("SELECT count(*) FROM encryption_keys").scalar_one():
        raise CommandError("columns are encrypted, which the version before could not read")
    op.drop_column("contacts", "email_sealed")
    op.drop_column("customers", "external_id_sealed")
    op.drop_table("data_keys")
    op.drop_table("encryption_keys")
