"""Access: whether a customer may call now, and each limit that may refuse it."""

import time
from collections.abc import Iterable, Mapping
from typing import Literal

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection
from typing_extensions import TypedDict

from edgeproxy.base.clock import EPOCH
from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.accounts import customers, documents
from edgeproxy.collector.accounts.contact_roles import BUILDERS
from edgeproxy.collector.accounts.states import CustomerState, compute_customer_state
from edgeproxy.collector.api.auth import Holder
from edgeproxy.collector.api.endpoint import OWN, READERS, Call, Nothing, Query, get
from edgeproxy.collector.api.group import Group, Handlers
from edgeproxy.collector.billing.credits import balances
from edgeproxy.collector.billing.jobs.credits import get_credit_meters
from edgeproxy.collector.billing.reports import key_spend
from edgeproxy.collector.database.schema import keys
from edgeproxy.collector.ledger import customer_limits
from edgeproxy.collector.quotas import access, customer_quotas, usage
from edgeproxy.collector.quotas.access import AccessLimit
from edgeproxy.collector.traffic import limit_usage
from edgeproxy.collector.traffic.limit_usage import EdgeUsage
from edgeproxy.config.allowance import Allowance, get_selection
from edgeproxy.wire.limit_usage import LimitUsage


class Access(TypedDict):
    """The answer to whether a customer may call now, with each limit that may refuse its requests."""

    customer: str
    """The customer, by name."""
    as_of: str
    """The time of this answer. Counts of edges arrive within seconds."""
    may_call: Literal["yes", "partly", "no"]
    """`yes`; `partly` if a reached limit refuses some requests; `no` if every request is refused."""
    limits: list[AccessLimit]
    """The limits: first the ones that refuse requests now, then the fullest."""


def _may_read(holder: Holder, limit: AccessLimit) -> bool:
    """Return True if a contact may see a limit. Budgets name keys, so only contacts who may see keys see budgets."""
    return limit["kind"] != "budget" or holder.contact_role is None or holder.contact_role in BUILDERS


def _describe_rates(
    allowance: Allowance, minutes: Mapping[int, int] | None, edges: Iterable[EdgeUsage], now: int
) -> list[AccessLimit]:
    """Describe the rates, the session cap, the limit of concurrent requests, and the limits of routes.

    The use is what edges report of a watched customer, else what the ledger has in `minutes`. Limits of routes are
    known from reports alone, because they are in the files of edges.
    """
    live: dict[str, int] = {}  # Edges that share a limit each report the total of all of them.
    of_routes: dict[tuple[str, str], LimitUsage] = {}
    known = {limit.name for limit in allowance.limits} | {"session", "concurrency"}
    for edge in edges:
        for one in edge.limits:
            if one.route and one.limit not in known and one.mode == "enforce":
                before = of_routes.get((one.limit, one.route))
                if before is None or one.used > before.used:
                    of_routes[one.limit, one.route] = one
            else:
                live[one.limit] = max(live.get(one.limit, 0), one.used)
    described = []
    for limit in allowance.limits:
        if limit.mode == "enforce":
            used = live.get(limit.name, customer_limits.compute_current_use(limit, minutes, now))
            described.append(access.describe_rate(limit, used))
    if allowance.caps is not None and allowance.caps.session is not None:
        described.append(access.describe_session(allowance.caps.session, live.get("session")))
    if allowance.concurrency is not None:
        used = live.get("concurrency")
        described.append(access.describe_concurrency(allowance.concurrency.max, allowance.concurrency.routes, used))
    return described + [access.describe_route_limit(use) for use in of_routes.values()]


class AccessHandlers(Handlers):
    """Handlers of access."""

    @get(
        "/v1/customers/{customer}/access",
        roles=READERS | OWN,
        errors={409: "The tier of the customer is not configured here."},
    )
    async def fetch_access(self, call: Call[Query, Nothing]) -> Access:
        """Fetch whether a customer may call now, with the use, the allowed amount and the end of each limit."""
        ref, now = call.path("customer"), time.time()
        async with self._database.reading(whole=True) as connection:
            name, allowance = await customer_quotas.get_allowance(connection, ref, self._settings)
            is_charged = not (await documents.fetch_terms(connection)).free
            limits = [
                *await self._describe_customer(connection, name, now, is_charged),
                *await self._describe_credits(connection, name, is_charged),
                *await self._describe_quotas(connection, name),
                *await self._describe_budgets(connection, name, now, is_charged),
            ]
            minutes = await self._fetch_minutes(connection, name, int(now))
        edges = await limit_usage.fetch_and_watch(self._database, name, int(now), call.holder.customer is None)
        limits += _describe_rates(allowance, minutes, edges, int(now))
        limits = [limit for limit in limits if _may_read(call.holder, limit)]
        return {
            "customer": name,
            "as_of": format_timestamp(int(now * 1000)),
            "may_call": access.find_verdict(limits),
            "limits": access.order_limits(limits),
        }

    async def _describe_customer(
        self, connection: AsyncConnection, name: str, now: float, is_charged: bool
    ) -> list[AccessLimit]:
        row = await customers.find_row(connection, name)
        if row is None or name in self._settings.customers:
            paused = access.get_pause(self._settings.customers.get(name))
            return [access.describe_account(paused is None, paused)]
        state = compute_customer_state(row)
        paused = access.get_pause(await documents.find_customer(connection, name))
        if not is_charged and state is CustomerState.PAUSED and paused is not None and paused["status"] == 402:
            state, paused = CustomerState.ACTIVE, None  # While nothing is charged, unpaid bills do not matter.
        works = keys.c.revoked_at.is_(None) & (keys.c.expires_at.is_(None) | (keys.c.expires_at > now * 1000))
        counted = sa.select(sa.func.count().filter(works), sa.func.count()).where(keys.c.customer == row.id)
        usable, known = (await connection.execute(counted)).one()
        return [
            access.describe_account(state is CustomerState.ACTIVE, paused),
            *access.describe_keys(usable, known - usable),
        ]

    async def _describe_credits(self, connection: AsyncConnection, name: str, is_charged: bool) -> list[AccessLimit]:
        billing = self._settings.billing
        meters = None if billing is None else get_credit_meters(billing)
        if meters is None:
            return []
        spent = (await balances.fetch_credit_usage(connection, meters, [name])).get(name)
        if spent is None:
            return []
        return [access.describe_credits(spent.granted, spent.used, spent.currency, is_charged=is_charged)]

    async def _describe_quotas(self, connection: AsyncConnection, name: str) -> list[AccessLimit]:
        meters = self._settings.meters
        quotas = await customer_quotas.get_quotas(connection, name, self._settings)
        statuses = await usage.fetch_statuses(connection, [quotas], meters, usage.edge_time())
        return [
            access.describe_quota(
                status,
                get_selection(status.quota, meters[status.quota.meter])
                if status.quota.meter in meters
                else status.quota,
            )
            for status in statuses[name]
        ]

    async def _fetch_minutes(self, connection: AsyncConnection, name: str, now: int) -> dict[int, int] | None:
        """Return the customer's requests by minute, or None if no meter counts requests."""
        counted = [meter for meter, one in self._settings.meters.items() if one.count == "requests"]
        return await customer_limits.fetch_minutes(connection, name, counted[0], now) if counted else None

    async def _describe_budgets(
        self, connection: AsyncConnection, name: str, now: float, is_charged: bool
    ) -> list[AccessLimit]:
        uses = await key_spend.fetch_uses(connection, [name], self._settings.meters, now - EPOCH, is_usable=True)
        return [
            access.describe_budget(
                use.key.start,
                (use.budget.meter, use.budget.currency),
                use.used,
                use.budget.amount,
                use.resets,
                is_held=is_charged or use.budget.meter is not None,
            )
            for use in uses
        ]


GROUP = Group(
    "access", "Limits that may refuse a customer's requests now, and whether the customer may call.", AccessHandlers
)
