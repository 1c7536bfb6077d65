"""Settings of `billing` in collector.yaml: plans, charging, and access to Stripe."""

import re
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, ModelWrapValidatorHandler, model_validator

from edgeproxy.config import addresses, parsers
from edgeproxy.config.collector.coupons import Coupons
from edgeproxy.config.collector.credits import Accounts, Credits
from edgeproxy.config.collector.currencies import Currencies
from edgeproxy.config.collector.currency_units import USD
from edgeproxy.config.collector.money import find_currency, read_amounts, reading_in
from edgeproxy.config.collector.seller import Seller
from edgeproxy.config.field_types import File, Name, Sentence, Switch
from edgeproxy.config.forms import build_text, written
from edgeproxy.config.part import Part
from edgeproxy.config.units import DAY_SECONDS, Time, Whole, format_value, read_text, value_error

STRIPE = "https://api.stripe.com"
KEY_VARIABLE, SECRETS_VARIABLE = "STRIPE_SECRET_KEY", "STRIPE_WEBHOOK_SECRETS"
"""Variables of the environment with the keys, unless a file has them."""
A_BASE = f"{STRIPE}, or http://HOST:PORT of this machine for a sandbox"
A_KEY_FILE = f"the file that has it, or leave this out and set {KEY_VARIABLE} or {SECRETS_VARIABLE}"
KEY = re.compile(r"\s*(sk|rk|pk|whsec)_")


@written(build_text("URL", r"https?://[^/?#@\s]+/?", STRIPE))
def read_base(value: object) -> str:
    """Read the base URL of Stripe: its own, or another one that may receive keys."""
    url = read_text(value, A_BASE)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise value_error(f"{format_value(url)} is not a URL", A_BASE) from None
    if parts.scheme not in ("https", "http") or not parts.hostname or parts.path.strip("/") or parts.query or port == 0:
        raise value_error(f"{format_value(url)} is not the address of a server", A_BASE)
    if parts.scheme == "http" and not addresses.is_loopback(parts.hostname):
        raise value_error(f"{format_value(url)} is reached in the clear, and keys are sent to it", A_BASE)
    return url.rstrip("/")


@written(build_text("file", r"(?!(sk|rk|pk|whsec)_).+", "/run/secrets/stripe"), lambda _: None)
def read_key_file(value: object) -> str:
    """Read the path of a file with keys. A key itself is refused and not shown."""
    if isinstance(value, str) and KEY.match(value):
        raise value_error("is a key itself, and files like this one are copied about", A_KEY_FILE)
    return parsers.read_file(value)


KeyFile = Annotated[Path, BeforeValidator(read_key_file)]


class Stripe(Part):
    """Access to Stripe."""

    base: Annotated[str, BeforeValidator(read_base)] = Field(
        default=STRIPE, description="URL of Stripe; any other is that of a sandbox."
    )
    key: KeyFile | None = Field(
        default=None,
        description="File with the secret or restricted key; the key itself is refused here. By default "
        "`STRIPE_SECRET_KEY` of the environment.",
    )
    webhook_secrets: KeyFile | None = Field(
        default=None,
        description="File with the webhook secrets, one a line. By default `STRIPE_WEBHOOK_SECRETS` of the "
        "environment, with spaces between.",
    )
    live: Switch = Field(
        default=False,
        description="States that the key moves real money. A live key is refused without it, and a test key with it.",
    )


class Rollout(Part):
    """Customers that are charged under `mode: live`."""

    percent: Annotated[int, BeforeValidator(Whole(0, 100))] = Field(
        default=100,
        description="Bound of the percentage of customers that are charged. A lower one holds at once; a higher one "
        "charges nobody more until `edgeproxy billing rollout` does. An installation that begins with `mode: live` "
        "begins with it.",
    )
    shadow_for: Annotated[float, BeforeValidator(Time(0.0, 90 * DAY_SECONDS))] = Field(
        default=4 * 3600.0,
        description="Time for which nobody but `allow` is charged before the gates of the first step can open.",
    )
    allow: tuple[Name, ...] = Field(
        default=(), description="Customers that are charged in any case, also under `mode: shadow`."
    )
    stop: Sentence | None = Field(default=None, description="Text for customers; if set, nobody is charged any more.")


class BreakerThresholds(Part):
    """The [breaker](anomalies.md#the-breaker-by-money): customers who spend many times what is usual for them."""

    enabled: Switch = Field(default=True, description="Looks for such customers, and raises an alert.")
    times: Annotated[int, BeforeValidator(Whole(2, 1000))] = Field(
        default=5, description="Multiple of what is usual for the hour of the week; of new customers, of their plan."
    )
    least: Annotated[dict[str, int], BeforeValidator(read_amounts)] = Field(
        default={USD: 500},
        description='Value of an hour\'s usage below which nothing is reported: `"5"`, or `{usd: "5", jpy: "700"}` '
        'with each currency of the plans. By default `"5"`, in US dollars.',
    )
    pause: Switch = Field(default=False, description="Pauses such a customer (403) until a person resumes it.")


class Tax(Part):
    """Taxes."""

    stripe_tax: Switch = Field(
        default=False,
        description="Stripe computes the tax of each invoice, on top of the prices. An invoice whose tax is unknown "
        "is held.",
    )
    vat: Switch = Field(default=False, description="Checkout asks businesses for their tax id.")
    business_id_required: Switch = Field(default=False, description="Businesses without a valid tax id cannot buy.")


class Unpaid(Part):
    """The end of service to a customer who does not pay: see [unpaid plans](runbook.md#somebody-has-not-paid)."""

    after: Literal["pause", "cancel", "uncollectible", "keep"] = Field(
        default="pause",
        description="What becomes of a plan at the end of its period if its customer is refused for unpaid invoices "
        "and the last retry is over. `pause`: its fees rest until all is paid. `cancel`: it ends. `uncollectible`: it "
        "ends, and the invoices are written off. `keep`: its fees are invoiced further on.",
    )
    periods: Annotated[int, BeforeValidator(Whole(1, 120))] = Field(
        default=2, description="Open invoices of a customer from which on `after` holds."
    )


class Billing(Part):
    """Plans and charging: see [what usage costs](billing.md)."""

    plans: File = Field(
        description="Plans that are sold: a [plans.yaml](billing.md#plans), which is checked with this file."
    )
    mode: Literal["off", "shadow", "live"] = Field(
        default="off",
        description="`off` invoices nothing. `shadow` computes all invoices, and sends only those of `rollout.allow` "
        "to Stripe. `live` charges customers as `rollout` says.",
    )
    collection: Literal["invoice_items", "meters"] = Field(
        default="invoice_items",
        description="Usage is rated here and Stripe collects (`invoice_items`), or is [reported to "
        "Stripe](stripe.md#usage-by-meters), which rates it too (`meters`). A change holds from each customer's next "
        "period.",
    )
    currency: Literal["usd"] = Field(
        default="usd",
        description="Currency of amounts in this section that name none. Plans say [theirs](billing.md#currencies).",
    )
    currencies: Currencies = Field(
        default={},
        description="Currencies in which [pages](pages.md#other-currencies) show approximate amounts beside US "
        "dollars, by code.",
    )
    anchor: Literal["month", "signup"] = Field(
        default="month",
        description="Begin of periods: the 1st, or the day of the month of the subscription. Existing subscriptions "
        "keep theirs.",
    )
    freeze: Annotated[float, BeforeValidator(Time(0.0, 14 * DAY_SECONDS))] = Field(
        default=2 * DAY_SECONDS,
        description="Time after a period in which late usage still gets onto its invoice. Later usage is a line on "
        "the next one.",
    )
    payment_grace: Annotated[float, BeforeValidator(Time(0.0, 90 * DAY_SECONDS))] = Field(
        default=21 * DAY_SECONDS,
        description="Time after an invoice is closed, or goes out if it was held, for which a customer who has not "
        "paid it is served, at least until it is due; then edges answer 402 until it is paid. Invoices that are sent "
        "are due after 14 days.",
    )
    payment_retries: tuple[Annotated[float, BeforeValidator(Time(3600.0, 60 * DAY_SECONDS))], ...] = Field(
        default=tuple(days * DAY_SECONDS for days in (1, 3, 5, 7)),
        description="Times after a payment was first declined at which it is tried again, by default 1, 3, 5 and 7 "
        "days. With another payment method it is tried at once.",
    )
    unpaid: Unpaid = Field(
        default=Unpaid(), description="What becomes of a plan whose invoices stay unpaid after the last retry."
    )
    price_notice: Annotated[float, BeforeValidator(Time(0.0, 365 * DAY_SECONDS))] = Field(
        default=30 * DAY_SECONDS,
        description="Time before the price of a customer's plan changes at which the customer has an alert: see [price "
        "changes](price-changes.md#what-customers-are-told).",
    )
    purchase: Switch = Field(default=True, description="Allows purchases.")
    charging: Switch = Field(
        default=True,
        description="Allows charges. When off, service goes on, invoices wait, and usage in the meantime is [never "
        "charged](runbook.md#stop-charging).",
    )
    rollout: Rollout = Field(default=Rollout(), description="Customers that are charged under `mode: live`.")
    breaker: BreakerThresholds = Field(
        default=BreakerThresholds(), description="Customers who spend many times what is usual for them."
    )
    stripe: Stripe = Field(
        default=Stripe(),
        description="Access to Stripe. `stripe`, `collection`, and `mode` from or to `off`, need a restart.",
    )
    seller: Seller | None = Field(
        default=None,
        description="Who sells, as pages of invoices say it; the PDF has what is set at Stripe. By default the name of "
        "the account at Stripe.",
    )
    tax: Tax = Field(default=Tax(), description="Taxes.")
    credits: Credits | None = Field(
        default=None, description="Credits that customers [buy in advance](credits.md). By default none are sold."
    )
    coupons: Coupons = Field(default={}, description="[Coupons](billing.md#coupons), by code.")
    accounts: Accounts = Field(
        default={},
        description="Names of accounts [in your books](accounting.md#accounts), by their names here. By default those "
        "in English.",
    )

    @model_validator(mode="wrap")
    @classmethod
    def _read_in_currency(cls, value: object, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Read amounts without a currency in the section's currency."""
        with reading_in(find_currency(value)):
            return handler(value)
