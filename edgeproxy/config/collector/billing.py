"""What operators write under `billing` of collector.yaml: what is sold, who is charged, and the way to Stripe."""

import re
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator

from edgeproxy.config import addresses, parsers
from edgeproxy.config.collector.credits import Accounts, Credits
from edgeproxy.config.collector.currencies import Currencies
from edgeproxy.config.field_types import File, Name, Sentence, Switch
from edgeproxy.config.part import Part
from edgeproxy.config.units import Time, Whole, format_value, read_text, value_error

STRIPE = "https://api.stripe.com"
KEY_VARIABLE, SECRETS_VARIABLE = "STRIPE_SECRET_KEY", "STRIPE_WEBHOOK_SECRETS"
"""Where keys are in the environment, unless a file has them."""
A_BASE = f"{STRIPE}, or http://HOST:PORT of this machine for a sandbox"
A_KEY_FILE = f"the file that has it, or leave this out and set {KEY_VARIABLE} or {SECRETS_VARIABLE}"
KEY = re.compile(r"\s*(sk|rk|pk|whsec)_")
DAY_SECONDS = 86400.0


def read_base(value: object) -> str:
    """Read where Stripe is: its own address, or one that keys may be sent to."""
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


def read_key_file(value: object) -> str:
    """Read the name of a file with keys. A key itself is refused, and not shown."""
    if isinstance(value, str) and KEY.match(value):
        raise value_error("is a key itself, and files like this one are copied about", A_KEY_FILE)
    return parsers.read_file(value)


KeyFile = Annotated[Path, BeforeValidator(read_key_file)]


class Stripe(Part):
    """The way to Stripe."""

    base: Annotated[str, BeforeValidator(read_base)] = STRIPE
    """Where it is; another address is that of a sandbox."""
    key: KeyFile | None = None
    """The file that has the secret or restricted key; by default it is in `STRIPE_SECRET_KEY` of the environment."""
    webhook_secrets: KeyFile | None = None
    """The file that has the secrets of webhooks, one a line; by default they are in `STRIPE_WEBHOOK_SECRETS` of the
    environment, with spaces between."""
    live: Switch = False
    """Whether the key moves real money: a live key is refused without it, and a test key with it."""


class Rollout(Part):
    """Whom it charges under `mode: live`."""

    percent: Annotated[int, BeforeValidator(Whole(0, 100))] = 100
    """The share of customers that are charged; to raise it only adds some."""
    allow: tuple[Name, ...] = ()
    """Customers that are charged in any case, also under `mode: shadow`."""
    stop: Sentence | None = None
    """With it nobody is charged any more, and this is what they are told."""


class Tax(Part):
    """What is done about taxes."""

    stripe_tax: Switch = False
    """Stripe computes the tax of each invoice; one whose tax is not known is held."""
    vat: Switch = False
    """Checkout asks businesses for their tax id."""
    business_id_required: Switch = False
    """Businesses without a tax id that is valid cannot buy."""


class Billing(Part):
    """What is sold, who is charged for it, and how."""

    plans: File
    """What is sold: a plans.yaml."""
    mode: Literal["off", "shadow", "live"] = "off"
    """off: nothing is invoiced; shadow: all is, and only those of `rollout.allow` are charged; live: customers are
    charged as `rollout` says."""
    collection: Literal["invoice_items", "meters"] = "invoice_items"
    """invoice_items: usage is rated here, and Stripe collects; meters: Stripe is told of usage and rates it too."""
    currency: Literal["usd"] = "usd"
    """That of all prices."""
    currencies: Currencies = {}
    """Currencies in which pages show amounts beside US dollars, as approximate: by code, the rate and its date."""
    anchor: Literal["month", "signup"] = "month"
    """When periods begin: on the 1st, or on the day of the month on which a customer subscribed."""
    freeze: Annotated[float, BeforeValidator(Time(0.0, 14 * DAY_SECONDS))] = 2 * DAY_SECONDS
    """How long after the end of a period usage of it still counts for its invoice; later usage is on the next one."""
    payment_grace: Annotated[float, BeforeValidator(Time(0.0, 90 * DAY_SECONDS))] = 21 * DAY_SECONDS
    """How long after an invoice is closed a customer who has not paid it is served; then answers are 402. Invoices that
    are sent are due after 14 days."""
    purchase: Switch = True
    """Whether anything can be bought."""
    charging: Switch = True
    """Whether anybody is charged; off, service goes on and invoices wait."""
    rollout: Rollout = Rollout()
    """Whom it charges under `mode: live`."""
    stripe: Stripe = Stripe()
    """The way to Stripe."""
    tax: Tax = Tax()
    """What is done about taxes."""
    credits: Credits | None = None
    """Credits that customers buy in advance and use up; by default none are sold."""
    accounts: Accounts = {}
    """What accounts are called in your books, by the names that they have here."""
