"""The use of key budgets according to the ledger: units of a meter, or a share of the cost of usage.

If a customer has too many keys, the ledger counts the further keys together as `~other`. This usage may belong to any
key, so each budget of the customer includes it: creating keys evades no budget.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping
from functools import partial
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
    usage = _UsageByKey(connection, now, meters)
    uses = []
    for of_budget in keys_by_budget.values():
        key = of_budget[-1]
        # The usage of replaced keys stays in the budget.
        usage_keys = {one.usage_key for one in of_budget}
        used = await _compute_used(usage, key, usage_keys, plans.get(key.customer), meters)
        has_ended = all(one.has_ended for one in of_budget)
        uses.append(BudgetUse(key, used, period_of(now, key.budget.per, UTC), has_ended))
    return uses


class _UsageByKey:
    """Units and amounts of meters by key at one moment. Each is queried once."""

    def __init__(self, connection: AsyncConnection, now: float, meters: Mapping[str, Meter]) -> None:
        self._connection, self._now, self._meters = connection, now, meters
        self._units: dict[LedgerQuery, dict[str, int]] = {}
        self._amounts: dict[LedgerQuery, dict[str, int]] = {}

    async def fetch_units(self, customer: str, meter: str, per: str) -> Mapping[str, int]:
        """Return the units of each key in the current period."""
        query = self._build_query(customer, meter, per)
        if query not in self._units:
            rows = (await queries.fetch_usage(self._connection, query))["rows"]
            self._units[query] = {row[KEY]: row["value"] for row in rows}
        return self._units[query]

    async def fetch_amounts(self, customer: str, meter: str, per: str) -> Mapping[str, int]:
        """Return the share of each key in the cost of the current period."""
        query = self._build_query(customer, meter, per)
        if query not in self._amounts:
            # Two calls of a page ask for the budgets of a customer.
            self._amounts[query] = await fetch_once(
                ("amounts by key", query), partial(self._fetch_amounts, customer, meter, query)
            )
        return self._amounts[query]

    async def _fetch_amounts(self, customer: str, meter: str, query: LedgerQuery) -> dict[str, int]:
        span = Span(query.since, query.until)
        rated = await usage_amounts.rate_usage(self._connection, customer, meter, span, self._meters)
        shares = await usage_amounts.share_by_group(self._connection, customer, meter, rated, (KEY,))
        return {key: amount for (key,), amount in shares.items()}

    def _build_query(self, customer: str, meter: str, per: str) -> LedgerQuery:
        period = period_of(self._now, per, UTC)
        return LedgerQuery(customer, meter, round(period.since + EPOCH), round(period.until + EPOCH), (KEY,))


def sum_usage(by_key: Mapping[str, int], of_keys: Collection[str]) -> int:
    """Return the sum for these keys, including usage that may be theirs."""
    return sum(by_key.get(key, 0) for key in (OTHER, *of_keys))  # The customer may have thousands of other keys.


async def _compute_used(
    usage: _UsageByKey, key: BudgetedKey, of_keys: Collection[str], plan: Plan | None, meters: Mapping[str, Meter]
) -> int | None:
    """Return the use of a budget by its keys, or None if it can no longer be computed."""
    budget = key.budget
    if budget.meter is not None:
        if not is_counted_by_key(budget.meter, meters):
            return None
        return sum_usage(await usage.fetch_units(key.customer, budget.meter, budget.per), of_keys)
    if plan is None or plan.currency != budget.currency:
        return None
    spent = 0
    try:
        for meter in list_priced_meters(plan, meters):
            spent += sum_usage(await usage.fetch_amounts(key.customer, meter, budget.per), of_keys)
    except (QuantityTooLargeError, UsageNotStoredError):
        return None
    return spent


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
