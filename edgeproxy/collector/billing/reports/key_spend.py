"""The use of key budgets according to the ledger: units of a meter, or a share of the cost of usage.

If a customer has too many keys, the ledger counts the further keys together as `~other`. This usage may belong to any
key, so each budget of the customer includes it: creating keys evades no budget.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from typing import NamedTuple
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base.calendar import Period, period_of
from edgeproxy.base.clock import EPOCH
from edgeproxy.base.percent import compute_percent
from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.accounts.change import ChangeRejectedError, reject_field
from edgeproxy.collector.accounts.key_budgets import KeyBudgetRequest, StoredBudget, parse_budget
from edgeproxy.collector.billing.period_close.quantities import QuantityTooLargeError, UsageNotStoredError
from edgeproxy.collector.billing.rating.rater import Span
from edgeproxy.collector.billing.reports import usage_amounts
from edgeproxy.collector.billing.subscriptions import subscription_rows
from edgeproxy.collector.database.read_once import fetch_once
from edgeproxy.collector.database.schema import customers, keys
from edgeproxy.collector.ledger import queries
from edgeproxy.collector.ledger.queries import LedgerQuery
from edgeproxy.collector.problems import billing_codes
from edgeproxy.config.collector.catalog import Plan
from edgeproxy.config.dimensions import OTHER
from edgeproxy.config.field_codes import NO_PRICE_BY_KEY, NOT_COUNTED_BY_KEY, OTHER_CURRENCY
from edgeproxy.config.meters import KEY, Meter, is_by_key
from edgeproxy.wire.key_uses import format_usage_key

UTC = ZoneInfo("UTC")
BUDGET_ID = sa.func.substr(keys.c.budget, len('{"id":"') + 1, 36)
"""The id of a key's budget, with which its JSON begins (accounts/key_budgets.py)."""
NO_PLAN = "the customer has no plan, and so no prices: give a meter"


class BudgetedKey(NamedTuple):
    """A key with a budget."""

    id: str
    customer: str
    """The customer, by name."""
    sha256: str
    start: str
    name: str | None
    budget: StoredBudget
    has_ended: bool
    """True if the key is revoked or has expired."""

    @property
    def usage_key(self) -> str:
        """The name of the key in usage."""
        return format_usage_key(bytes.fromhex(self.sha256)).decode()


class BudgetUse(NamedTuple):
    """The use of a budget by its keys."""

    key: BudgetedKey
    """The key that has the budget now: the last of the keys that replaced each other."""
    used: int | None
    """Units of the meter, or smallest units of the currency; None if the plan no longer has prices in it."""
    period: Period
    has_ended: bool
    """True if no key of the budget works, so that the budget refuses nothing."""

    @property
    def budget(self) -> StoredBudget:
        """The budget."""
        return self.key.budget

    @property
    def percent(self) -> float | None:
        """The used share in percent; None if it is unknown."""
        return None if self.used is None else compute_percent(self.used, self.budget.amount)

    @property
    def resets(self) -> str:
        """The end of the period, as a timestamp."""
        return format_timestamp(round((self.period.until + EPOCH) * 1000))


async def resolve_budget(
    connection: AsyncConnection, customer: str, requested: KeyBudgetRequest, meters: Mapping[str, Meter]
) -> KeyBudgetRequest:
    """Return a valid budget for a key of a customer, by id or name; a money budget gets its currency.

    Raises ChangeRejectedError if its usage is not counted by key, or has no price.
    """
    if requested.meter is not None:
        if not is_counted_by_key(requested.meter, meters):
            raise reject_field(
                "budget", f"{requested.meter} is not counted by key: give it the dimension `{KEY}`", NOT_COUNTED_BY_KEY
            )
        return requested
    plan = await _find_plan(connection, customer)
    if plan is None:
        raise ChangeRejectedError(billing_codes.PLAN_MISSING, NO_PLAN)
    if requested.currency not in (None, plan.currency):
        raise reject_field(
            "budget", f"the customer's plan has its prices in {plan.currency}", OTHER_CURRENCY, currency=plan.currency
        )
    if not list_priced_meters(plan, meters):
        raise reject_field(
            "budget", f"no meter with a price is counted by key: give one the dimension `{KEY}`", NO_PRICE_BY_KEY
        )
    return requested.model_copy(update={"currency": plan.currency})


def is_counted_by_key(meter: str, meters: Mapping[str, Meter]) -> bool:
    """Return whether a meter is a sum that is counted by key."""
    known = meters.get(meter)
    if known is None or known.aggregate != "sum" or KEY not in known.dimensions:
        return False
    return is_by_key(KEY, known.dimensions[KEY])


def list_priced_meters(plan: Plan, meters: Mapping[str, Meter]) -> list[str]:
    """Return the meters of a plan that have a price and are counted by key."""
    return [meter for meter, price in plan.meters.items() if price.has_prices and is_counted_by_key(meter, meters)]


async def fetch_uses(
    connection: AsyncConnection,
    names: Collection[str],
    meters: Mapping[str, Meter],
    now: float,
    *,
    of_keys: Collection[str] | None = None,
    is_usable: bool = False,
) -> list[BudgetUse]:
    """Return the use of each key budget of these customers, by name, at edge time `now`.

    `of_keys` selects the budgets of keys with these ids, `is_usable` the budgets of keys that still work. A customer
    may have thousands of others. The connection must read one snapshot. Raises queries.InvalidQueryError.
    """
    keys_by_budget: dict[str, list[BudgetedKey]] = defaultdict(list)
    for key in await _fetch_keys(connection, names, now, of_keys, is_usable=is_usable):
        keys_by_budget[key.budget.id].append(key)
    latest = [of_budget[-1] for of_budget in keys_by_budget.values()]
    buyers = {key.customer for key in latest if key.budget.meter is None}
    # Each plan is read once, however many keys its customer has.
    plans = {name: await _find_plan(connection, name) for name in buyers}
    used_by_terms: dict[_BudgetTerms, tuple[Period, Mapping[str, int] | None]] = {}
    uses = []
    for of_budget in keys_by_budget.values():
        key = of_budget[-1]
        terms = _BudgetTerms(key.customer, key.budget.meter, key.budget.currency, key.budget.per)
        if terms not in used_by_terms:  # Thousands of budgets have few terms.
            period = period_of(now, terms.per, UTC)
            by_key = await _fetch_used(connection, terms, period, plans.get(key.customer), meters)
            used_by_terms[terms] = period, by_key
        period, by_key = used_by_terms[terms]
        # The usage of replaced keys stays in the budget.
        used = None if by_key is None else sum_usage(by_key, {one.usage_key for one in of_budget})
        has_ended = all(one.has_ended for one in of_budget)
        uses.append(BudgetUse(key, used, period, has_ended))
    return uses


class _BudgetTerms(NamedTuple):
    """The terms of a budget. Budgets with equal terms are read together."""

    customer: str
    """The customer, by name."""
    meter: str | None
    currency: str | None
    per: str


def sum_usage(by_key: Mapping[str, int], of_keys: Collection[str]) -> int:
    """Return the sum for these keys, including usage that may be theirs."""
    return sum(by_key.get(key, 0) for key in (OTHER, *of_keys))  # The customer may have thousands of other keys.


async def _fetch_used(
    connection: AsyncConnection, terms: _BudgetTerms, period: Period, plan: Plan | None, meters: Mapping[str, Meter]
) -> Mapping[str, int] | None:
    """Return the use of budgets with these terms by each key, or None if it can no longer be computed."""
    since, until = round(period.since + EPOCH), round(period.until + EPOCH)
    if terms.meter is not None:
        if not is_counted_by_key(terms.meter, meters):
            return None
        query = LedgerQuery(terms.customer, terms.meter, since, until, (KEY,))
        return {row[KEY]: row["value"] for row in (await queries.fetch_usage(connection, query))["rows"]}
    if plan is None or plan.currency != terms.currency:
        return None
    spent = Counter[str]()
    try:
        for meter in list_priced_meters(plan, meters):
            spent.update(await _fetch_amounts(connection, terms.customer, meter, Span(since, until), meters))
    except (QuantityTooLargeError, UsageNotStoredError):
        return None
    return spent


async def _fetch_amounts(
    connection: AsyncConnection, customer: str, meter: str, span: Span, meters: Mapping[str, Meter]
) -> dict[str, int]:
    """Return the share of each key in the cost of a meter's usage."""

    async def fetch() -> dict[str, int]:
        rated = await usage_amounts.rate_usage(connection, customer, meter, span, meters)
        shares = await usage_amounts.share_by_group(connection, customer, meter, rated, (KEY,))
        return {key: amount for (key,), amount in shares.items()}

    # Two calls of a page ask for the budgets of a customer.
    return await fetch_once(("amounts by key", customer, meter, span), fetch)


async def _fetch_keys(
    connection: AsyncConnection,
    names: Collection[str],
    now: float,
    of_keys: Collection[str] | None,
    *,
    is_usable: bool,
) -> list[BudgetedKey]:
    """Return the customers' keys with a budget, including those that ended by edge time `now`, in the order of
    creation. `of_keys` and `is_usable` select budgets as in `fetch_uses`.
    """
    is_past = keys.c.revoked_at.is_not(None) | (keys.c.expires_at <= (now + EPOCH) * 1000)
    has_ended = sa.func.coalesce(is_past, sa.false())
    of_selection: list[sa.ColumnElement[bool]] = [] if of_keys is None else [keys.c.id.in_(of_keys)]
    if is_usable:
        of_selection.append(~has_ended)
    is_selected = sa.and_(sa.true(), *of_selection)
    # A window and no IN: the planner expects few keys, and would compare all of a customer with all.
    is_budget_selected = sa.func.max(sa.case((is_selected, 1), else_=0)).over(partition_by=BUDGET_ID)
    # No join: the planner would look the customer up for each key.
    owners = await connection.execute(sa.select(customers.c.id, customers.c.name).where(customers.c.name.in_(names)))
    names_by_id = dict(owners.all())
    budgets = (
        sa.select(keys.c.id, keys.c.customer, keys.c.sha256, keys.c.start, keys.c.name, keys.c.budget)
        .add_columns(has_ended.label("has_ended"), is_budget_selected.label("is_selected"))
        .where(keys.c.customer.in_(names_by_id), keys.c.budget.is_not(None))
        .subquery()
    )
    columns = (column for column in budgets.c if column is not budgets.c.is_selected)
    rows = await connection.execute(sa.select(*columns).where(budgets.c.is_selected == 1).order_by(budgets.c.id))
    budgeted = []
    for id_, customer, sha256, start, name, stored, ended in rows:
        budget = parse_budget(stored)
        if budget is not None:
            budgeted.append(BudgetedKey(id_, names_by_id[customer], sha256, start, name, budget, bool(ended)))
    return budgeted


async def _find_plan(connection: AsyncConnection, customer: str) -> Plan | None:
    """Return the current plan of a customer, by id or name, or None without a subscription."""
    row = await subscription_rows.find_live(
        connection, (await subscription_rows.get_subscriber(connection, customer)).id
    )
    return None if row is None else (await subscription_rows.load_subscription(connection, row)).current.last.plan
