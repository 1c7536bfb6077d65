"""Coupons: how often each was redeemed, by whom, and what it takes off."""

import sqlalchemy as sa
from alembic import op
from alembic.util.exc import CommandError

revision = "0043"
down_revision = "0042"

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "coupons",
        sa.Column("code", sa.Text, primary_key=True),
        sa.Column("redemptions", WHOLE, nullable=False),
        sqlite_strict=True,
    )
    op.create_table(
        "coupon_redemptions",
        sa.Column("customer", sa.Text, sa.ForeignKey("customers.id"), primary_key=True),
        sa.Column("code", sa.Text, primary_key=True),
        sa.Column("subscription", sa.Text, sa.ForeignKey("subscriptions.id"), nullable=False),
        sa.Column("share", WHOLE),
        sa.Column("amount_off", WHOLE),
        sa.Column("plans", sa.Text, nullable=False),
        sa.Column("starts", WHOLE, nullable=False),
        sa.Column("until", WHOLE),
        sa.Column("created_at", WHOLE, nullable=False),
        sqlite_strict=True,
    )
    op.create_index("coupon_redemptions_subscription", "coupon_redemptions", ["subscription"])


def downgrade() -> None:
    redeemed = "SELECT count(*) FROM coupon_redemptions"
    if op.get_bind().exec_driver_sql(redeemed).scalar_one():
        raise CommandError("coupons were redeemed, which the version before would not take off")
    op.drop_table("coupon_redemptions")
    op.drop_table("coupons")
