"""A customer's money on its page in the console: plan, balance, next and overdue invoices, usage that costs."""

import asyncio
import time
from typing import NamedTuple

from edgeproxy.collector.pages import keys, usage
from edgeproxy.collector.pages.api import ApiResponse, JsonDocument
from edgeproxy.collector.pages.invoice_status import Receivables, sum_receivables
from edgeproxy.collector.pages.navigation import INVOICE_READERS
from edgeproxy.collector.pages.site import Visit
from edgeproxy.collector.pages.usage import Split
from edgeproxy.collector.pages.usage_explorer import list_priced_meters
from edgeproxy.config.meters import KEY, MEASURES, MODEL

DIMENSIONS = (KEY, MODEL)
VALUES_MAX = 5
"""Values in a table of usage by key or model. The page has many other parts, and must stay below 90 KB."""


class MoneyFact(NamedTuple):
    """A fact of the API: its document, or why there is none."""

    body: JsonDocument
    """None if there is no document."""
    is_unknown: bool
    """True if the API could not tell. Otherwise a missing document means that the customer has no such thing."""


class CustomerMoney(NamedTuple):
    """The facts of the card."""

    subscription: MoneyFact
    upcoming: MoneyFact
    spend: MoneyFact
    """The cost of the period, and the customer's spending alerts."""
    balance: MoneyFact | None
    """None if no credits are sold."""
    invoices: Receivables | None
    """None if they are not known."""


def to_fact(response: ApiResponse) -> MoneyFact:
    """Return the fact in a response. With 404 the customer has none, with another error it is not known."""
    return MoneyFact(response.body if response.is_success else None, response.status >= 400 and response.status != 404)


def may_see_money(visit: Visit) -> bool:
    """Return True if something is sold here and the operator may see invoices."""
    return visit.site.settings_now().billing is not None and bool(visit.signed_in.who.roles & INVOICE_READERS)


async def fetch_money(visit: Visit, customer: str) -> dict[str, object]:
    """Return the facts of a customer's money, and why its plan ends. They are None if the operator may not see them."""
    billing = visit.site.settings_now().billing
    if billing is None or not may_see_money(visit):
        return {"money": None, "plan": None, "credits": None, "cancellation": None}
    calls: dict[str, tuple[str, dict[str, str]]] = {
        "subscription": ("/billing/subscription", {}),
        "cancellations": ("/billing/cancellations", {}),
        "upcoming": ("/billing/invoices/upcoming", {"projected": "true"}),
        "spend": ("/billing/spend-alerts", {}),
        "invoices": ("/billing/receivables", {}),
    }
    if billing.credits is not None:
        calls["balance"] = ("/billing/balance", {})
    # Concurrently, because each call mostly waits for the database.
    responses = await asyncio.gather(
        *(visit.call("GET", path, query={"customer": customer, **query}) for path, query in calls.values())
    )
    by_name = dict(zip(calls, responses, strict=True))
    facts = {name: to_fact(response) for name, response in by_name.items()}
    owed = facts["invoices"].body
    ended = facts["cancellations"].body
    money = CustomerMoney(
        facts["subscription"],
        facts["upcoming"],
        facts["spend"],
        facts.get("balance"),
        None if owed is None else sum_receivables(owed["receivables"], time.time()),
    )
    return {
        "money": money,
        "plan": money.subscription.body,
        "credits": None if money.balance is None else money.balance.body,
        "cancellation": None if ended is None else next(iter(ended["cancellations"]), None),
    }


async def fetch_splits(visit: Visit, customer: str, since: int) -> dict[str, object]:
    """Return a customer's usage since a Unix second by key and by model, with costs for operators who may see them.

    Each is of one meter: of those with a price, if there are any, the most used one.
    """
    settings = visit.site.settings_now()
    counted = [meter for meter in settings.meters.values() if not MEASURES[meter.count].is_of_refusals]
    priced = list_priced_meters(settings.plans.values())
    splits = await usage.fetch_splits(visit, customer, since, DIMENSIONS)
    splits.sort(key=lambda split: (split.meter not in priced, -split.total), reverse=True)
    by_dimension = {split.dimension: shorten_split(split) for split in splits}  # The first in rank is the last here.
    splits = [by_dimension[name] for name in DIMENSIONS if name in by_dimension]
    if may_see_money(visit):
        splits = await asyncio.gather(*(usage.fetch_split_costs(visit, customer, since, split) for split in splits))
    usage_keys = [value.value for split in splits if split.dimension == KEY for value in split.values]
    return {
        "splits": splits,
        "uncounted": [name for name in DIMENSIONS if not any(name in meter.dimensions for meter in counted)],
        "key_labels": await keys.fetch_labels(visit, customer, usage_keys),
    }


def shorten_split(split: Split) -> Split:
    """Return a split with its most used values."""
    return split._replace(values=split.values[:VALUES_MAX])
