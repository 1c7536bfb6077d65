"""A Stripe account that was in use before: odd customers with subscriptions, in a sandbox."""

from pathlib import Path
from typing import Any

from edgeproxy.collector.accounts import contacts
from edgeproxy.collector.billing.stripe.client import Stripe
from tests.support.sold import CALLER, Sold

MONTH_OUT = 32 * 86400
PLANS = """
plans:
  team@1: {fee: "31", annual: {discount: 10%}, tier: standard, trial: {days: 14}}
  usage@1: {fee: "10", tier: standard, meters: {calls: {included: 100, price: "1"}}}
"""
METERS = {"calls": {"count": "events"}}
OURS = (
    "plain",
    "filed",
    "mailed",
    "yearly",
    "trying",
    "late",
    "lost",
    "twice",
    "euro",
    "metered",
    "cheap",
    "planned",
    "quiet",
)
"""Our customers. The account has all of them, and some that are unknown to us."""
TAKEN = ("plain", "filed", "mailed", "yearly", "trying", "late", "lost", "metered")
"""Customers whose subscription can be taken over."""


def settings(folder: Path) -> dict[str, Any]:
    """Return the settings of these plans for `sold`."""
    file = folder / "plans.yaml"
    file.write_text(PLANS)
    return {"plans": str(file), "meters": METERS, "anchor": "signup"}


class ExistingAccount:
    """An account and its objects, by the names of our customers."""

    def __init__(self, stripe: Stripe, run: str) -> None:
        self.stripe = stripe
        self.run = run
        self.customers: dict[str, str] = {}
        self.subscriptions: dict[str, str] = {}
        self.prices: dict[str, str] = {}

    async def price(self, name: str, amount: int | None, **more: Any) -> None:
        """Create a price with its own product."""
        recurring = {"interval": "month", **more.pop("recurring", {})}
        created = await self.stripe.call(
            "v1.prices.create",
            **{
                "currency": "usd",
                "recurring": recurring,
                "product_data": {"name": name},
                **({} if amount is None else {"unit_amount": amount}),
                **more,
            },
        )
        self.prices[name] = created["id"]

    async def customer(self, name: str, *, card: bool = True, **more: Any) -> str:
        """Create a customer with a card that is charged."""
        created = await self.stripe.call("v1.customers.create", name=name, **more)
        self.customers[name] = str(created["id"])
        if card:
            await self.use_card(name, "pm_card_visa")
        return self.customers[name]

    async def subscribe(self, name: str, *prices: str, **more: Any) -> str:
        """Subscribe a customer to prices."""
        items = [{"price": self.prices[price]} for price in prices]
        created = await self.stripe.call("v1.subscriptions.create", customer=self.customers[name], items=items, **more)
        self.subscriptions[name] = str(created["id"])
        return self.subscriptions[name]

    async def fill_prices(self) -> None:
        """Create all prices."""
        await self.price("team", 3100)
        await self.price("year", 33480, recurring={"interval": "year"})
        await self.price("old", 2500)
        await self.price("euro", 3100, currency="eur")
        await self.price("base", 1000)
        meter = await self.stripe.call(
            "v1.billing.meters.create",
            display_name="calls",
            event_name=f"old_calls_{self.run}",
            default_aggregation={"formula": "sum"},
        )
        await self.price(
            "calls",
            None,
            billing_scheme="tiered",
            tiers_mode="graduated",
            tiers=[{"up_to": 100, "unit_amount": 0}, {"up_to": "inf", "unit_amount": 100}],
            recurring={"usage_type": "metered", "meter": meter["id"]},
        )

    async def fill_late(self) -> None:
        """Create the customers whose next payment is declined: a month has to pass."""
        for name in ("late", "lost"):
            await self.customer(name, metadata={"edgeproxy_customer": name})
            await self.subscribe(name, "team")
            await self.use_card(name, "pm_card_chargeCustomerFail")

    async def use_card(self, name: str, card: str) -> None:
        """Charge a customer by another card."""
        attached = await self.stripe.call("v1.payment_methods.attach", card, customer=self.customers[name])
        default = {"default_payment_method": attached["id"]}
        await self.stripe.call("v1.customers.update", self.customers[name], invoice_settings=default)

    async def fill(self) -> None:
        """Create all others."""
        for name in ("plain", "yearly", "trying", "twice", "euro", "metered", "cheap", "planned"):
            await self.customer(name, metadata={"edgeproxy_customer": name}, email=f"{name}@example.com")
        await self.subscribe("plain", "team")
        await self.subscribe("yearly", "year")
        await self.subscribe("trying", "team", trial_period_days=10)
        await self.subscribe("twice", "team")
        await self.subscribe("twice", "base")
        await self.subscribe("euro", "euro")
        await self.subscribe("metered", "base", "calls")
        coupon = await self.stripe.call("v1.coupons.create", percent_off=50, duration="forever")
        await self.subscribe("cheap", "team", discounts=[{"coupon": coupon["id"]}])
        await self.subscribe("planned", "team")
        await self.stripe.call("v1.subscription_schedules.create", from_subscription=self.subscriptions["planned"])
        filed = await self.customer("filed")
        await self.subscribe("filed", "old")
        await self.stripe.call("v1.customers.update", filed, balance=-700)
        mailed = await self.customer("mailed", card=False, email="Mailed@Example.com")
        card = await self.stripe.call("v1.payment_methods.attach", "pm_card_visa", customer=mailed)
        await self.subscribe("mailed", "team", default_payment_method=card["id"])
        await self.customer("quiet", card=False)
        for twin in ("twin-1", "twin-2"):
            await self.customer(twin, card=False, email="twin@example.com")
        gone = await self.customer("gone", card=False, metadata={"edgeproxy_customer": "plain"})
        await self.stripe.call("v1.customers.delete", gone)

    def file(self) -> str:
        """The operator's file."""
        return f"stripe,edgeproxy\n{self.customers['filed']},filed\n{self.prices['old']},team@1\n"


async def add_customers(shop: Sold, now: float) -> None:
    """Create our customers, without plans."""
    for name in OURS:
        await shop.customer(name, now=now)
    for name, emails in (("mailed", ("mailed@example.com",)), ("quiet", ("twin@example.com",))):
        async with shop.database.writing() as connection:
            await contacts.put_contacts(connection, CALLER, name, contacts.Contacts(emails=emails))
