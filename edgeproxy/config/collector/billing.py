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
        default=STRIPE, description="URL of Stripe. Any other URL is a sandbox."
    )
    key: KeyFile | None = Field(
        default=None,
        description="File with the secret or restricted key. The key itself is refused here. By default "
        "`STRIPE_SECRET_KEY` of the environment.",
    )
    webhook_secrets: KeyFile | None = Field(
        default=None,
        description="File with the webhook secrets, one per line. By default `STRIPE_WEBHOOK_SECRETS` of the "
        "environment, separated by spaces.",
    )
    live: Switch = Field(
        default=False,
        description="States that the key moves real money. Without it a live key is refused; with it a test key is "
        "refused.",
    )


class Rollout(Part):
    """Customers charged under `mode: live`."""

    percent: Annotated[int, BeforeValidator(Whole(0, 100))] = Field(
        default=100,
        description="Upper bound of the percentage of customers charged. A lower bound applies at once. A higher one "
        "charges no further customers until `edgeproxy billing rollout` does. An installation that starts with `mode: "
        "live` starts at this percentage.",
    )
    shadow_for: Annotated[float, BeforeValidator(Time(0.0, 90 * DAY_SECONDS))] = Field(
        default=4 * 3600.0,
        description="Time for which only the customers in `allow` are charged. The gates of the first step can open "
        "after it.",
    )
    allow: tuple[Name, ...] = Field(
        default=(), description="Customers that are always charged, also under `mode: shadow`."
    )
    stop: Sentence | None = Field(
        default=None, description="Text for customers. If it is set, no customer is charged any more."
    )


class BreakerThresholds(Part):
    """The [breaker](anomalies.md#the-breaker-by-money): it finds customers who spend many times their usual amount."""

    enabled: Switch = Field(default=True, description="Looks for such customers and raises an alert.")
    times: Annotated[int, BeforeValidator(Whole(2, 1000))] = Field(
        default=5,
        description="Multiple of the usual spending in the hour of the week; for new customers, of the usual spending "
        "in their plan.",
    )
    least: Annotated[dict[str, int], BeforeValidator(read_amounts)] = Field(
        default={USD: 500},
        description='Value of an hour\'s usage below which nothing is reported: `"5"`, or `{usd: "5", jpy: "700"}` '
        'with each currency of the plans. By default `"5"`, in US dollars.',
    )
    pause: Switch = Field(default=False, description="Pauses such customers (403) until a person resumes them.")


class Tax(Part):
    """Taxes."""

    stripe_tax: Switch = Field(
        default=False,
        description="Stripe computes the tax of each invoice and adds it to the prices. An invoice whose tax is "
        "unknown is held.",
    )
    vat: Switch = Field(default=False, description="Checkout asks businesses for their tax id.")
    business_id_required: Switch = Field(default=False, description="Businesses without a valid tax id cannot buy.")


class Unpaid(Part):
    """The end of service for a customer who does not pay: see [unpaid plans](runbook.md#a-customer-has-not-paid)."""

    after: Literal["pause", "cancel", "uncollectible", "keep"] = Field(
        default="pause",
        description="Treatment of a plan at the end of its period, if its customer is refused for unpaid invoices and "
        "the last retry is over. `pause`: no fees until all invoices are paid. `cancel`: the plan ends. "
        "`uncollectible`: the plan ends, and the invoices are written off. `keep`: its fees are still invoiced.",
    )
    periods: Annotated[int, BeforeValidator(Whole(1, 120))] = Field(
        default=2, description="Number of a customer's open invoices at which `after` applies."
    )


class Billing(Part):
    """Plans and charging: see [what usage costs](billing.md)."""

    plans: File = Field(description="Plans on sale: a [plans.yaml](billing.md#plans). `check` reads it with this file.")
    mode: Literal["off", "shadow", "live"] = Field(
        default="off",
        description="`off` invoices nothing. `shadow` computes all invoices, and sends only those for customers in "
        "`rollout.allow` to Stripe. `live` charges customers according to `rollout`.",
    )
    collection: Literal["invoice_items", "meters"] = Field(
        default="invoice_items",
        description="Usage is rated here and Stripe collects the money (`invoice_items`), or usage is [reported to "
        "Stripe](stripe.md#usage-by-meters), which rates it too (`meters`). A change applies from each customer's "
        "next period.",
    )
    currency: Literal["usd"] = Field(
        default="usd",
        description="Currency of amounts in this section without one. Plans name [their own](billing.md#currencies).",
    )
    currencies: Currencies = Field(
        default={},
        description="Currencies for approximate amounts beside US dollars on [pages](pages.md#other-currencies), by "
        "code.",
    )
    anchor: Literal["month", "signup"] = Field(
        default="month",
        description="Start of periods: the 1st, or the day of the month of the subscription. Existing subscriptions "
        "keep their start.",
    )
    freeze: Annotated[float, BeforeValidator(Time(0.0, 14 * DAY_SECONDS))] = Field(
        default=2 * DAY_SECONDS,
        description="Time after a period when late usage still gets onto its invoice. Later usage is a line on the "
        "next invoice.",
    )
    payment_grace: Annotated[float, BeforeValidator(Time(0.0, 90 * DAY_SECONDS))] = Field(
        default=21 * DAY_SECONDS,
        description="How long a customer is still served after an unpaid invoice was closed (or sent, if it was held), "
        "at least until the invoice is due. Then edges answer 402 until it is paid. Invoices that are sent are due "
        "after 14 days.",
    )
    payment_retries: tuple[Annotated[float, BeforeValidator(Time(3600.0, 60 * DAY_SECONDS))], ...] = Field(
        default=tuple(days * DAY_SECONDS for days in (1, 3, 5, 7)),
        description="Times after the first declined payment when it is tried again, by default 1, 3, 5 and 7 days. A "
        "new payment method is tried at once.",
    )
    unpaid: Unpaid = Field(
        default=Unpaid(), description="Treatment of a plan whose invoices stay unpaid after the last retry."
    )
    price_notice: Annotated[float, BeforeValidator(Time(0.0, 365 * DAY_SECONDS))] = Field(
        default=30 * DAY_SECONDS,
        description="Time before a price change of its plan when a customer gets an alert: see [price "
        "changes](price-changes.md#what-customers-are-told).",
    )
    purchase: Switch = Field(default=True, description="Allows purchases.")
    charging: Switch = Field(
        default=True,
        description="Allows charges. If it is off, service goes on, invoices wait, and usage in the meantime is [never "
        "charged](runbook.md#stop-charging).",
    )
    rollout: Rollout = Field(default=Rollout(), description="Customers charged under `mode: live`.")
    breaker: BreakerThresholds = Field(
        default=BreakerThresholds(), description="The check for customers who spend many times their usual amount."
    )
    stripe: Stripe = Field(
        default=Stripe(),
        description="Access to Stripe. Changes of `stripe` and `collection`, and of `mode` from or to `off`, need a "
        "restart. A reload reads the files of keys again.",
    )
    seller: Seller | None = Field(
        default=None,
        description="The seller on pages of invoices and in the footer of the PDF, which begins with the seller set at "
        "Stripe. By default the name of the account at Stripe.",
    )
    tax: Tax = Field(default=Tax(), description="Taxes.")
    credits: Credits | None = Field(
        default=None, description="Credits that customers [buy in advance](credits.md). By default none are sold."
    )
    coupons: Coupons = Field(default={}, description="[Coupons](billing.md#coupons), by code.")
    accounts: Accounts = Field(
        default={},
        description="Names of accounts [in your books](accounting.md#accounts), by their names here. By default the "
        "English names.",
    )

    @model_validator(mode="wrap")
    @classmethod
    def _read_in_currency(cls, value: object, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Read amounts without a currency in the section's currency."""
        with reading_in(find_currency(value)):
            return handler(value)
