"""Quotas of customers and their allocated items."""

from collections.abc import Mapping
from operator import attrgetter
from typing import Annotated, Literal, NotRequired, cast

import orjson
from aiohttp import web
from pydantic import BeforeValidator
from sqlalchemy.ext.asyncio import AsyncConnection
from typing_extensions import TypedDict

from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.accounts.change import ChangeRejectedError
from edgeproxy.collector.accounts.end_users import is_hashing
from edgeproxy.collector.accounts.fields import Span
from edgeproxy.collector.accounts.models import Body
from edgeproxy.collector.api.directory import DIRECTORY_WAIT_SECONDS_MAX
from edgeproxy.collector.api.endpoint import (
    EDGE,
    JSON,
    OWN,
    READERS,
    SERVICE,
    AnyCall,
    Call,
    Nothing,
    Query,
    delete,
    get,
    put,
)
from edgeproxy.collector.api.field_types import PageLimit, Printed, in_query
from edgeproxy.collector.api.group import Group, Handlers, PathParameter
from edgeproxy.collector.api.request_reader import JSON_BYTES_MAX, parse_body, read_body
from edgeproxy.collector.api.responses import Result, next_page, problem
from edgeproxy.collector.database.quota_tables import holdings
from edgeproxy.collector.database.unreadable_rows import parse_page
from edgeproxy.collector.problems import account_codes, request_codes
from edgeproxy.collector.quotas import allocations, customer_quotas, usage
from edgeproxy.collector.quotas.allocations import ITEM, AllocationRow
from edgeproxy.collector.quotas.customer_quotas import CustomerQuotas
from edgeproxy.collector.quotas.quota_status import QuotaProjection, QuotaStatus, QuotaUsage
from edgeproxy.config.allowance import get_selection
from edgeproxy.config.collector.settings import CollectorSettings
from edgeproxy.config.meters import Meter
from edgeproxy.config.refusal_terms import QuotaKind, get_quota_kind
from edgeproxy.config.units import Whole


class HeldQuota(QuotaStatus):
    """A quota, its use, and the routes whose requests it may refuse."""

    kind: QuotaKind
    """`plan` for units that the plan includes, `cap` for a spending cap, else `quota`, as in the customer's access."""
    routes: list[str]
    """The routes whose requests the quota may refuse: names, or patterns such as `chat-*`. By default the routes of its
    meter; if `scopes` is empty too, all requests that feed the meter.
    """
    scopes: list[str]
    """The scopes of further routes whose requests the quota may refuse."""


class QuotaList(TypedDict):
    """The quotas of a customer, and their use."""

    customer: str
    """The customer, by name."""
    quotas: list[HeldQuota]
    """The status of each quota."""


class AllocateItemRequest(Body):
    """The options of an allocation."""

    ttl: Span | None = None
    """The lifetime of the allocation, such as 12h. It is then released. By default it has no end."""


class AllocationResponse(TypedDict):
    """An allocated item."""

    item: str
    """The item, by the service's own name for it."""
    taken_at: str
    """The time of the allocation."""
    expires_at: str | None
    """The time when the allocation is released by itself; null if it is not."""


class AllocatedItem(AllocationResponse):
    """An allocated item, and the total number of items. `allowed` is null if the quota allows any number."""

    customer: str
    """The customer, by name."""
    meter: str
    """The meter of the quota."""
    used: int
    """The number of items allocated."""
    allowed: int | None
    """The number of items that the quota allows; null if it allows any number."""


class AllocationList(TypedDict):
    """A page of the allocated items, in the order of their names."""

    holdings: list[AllocationResponse]
    """The allocations of this page, in the order of their items' names."""
    used: int
    """The number of items allocated."""
    allowed: int | None
    """The number of items that the quota allows; null if it allows any number."""
    next: NotRequired[str]
    """The `cursor` of the next page; missing on the last one."""


class AllocationsQuery(Query):
    """The page of allocations."""

    limit: PageLimit = 100
    """The number of allocations on the page, at most."""
    cursor: Printed | None = None
    """The `next` of the page before; by default the first page."""


SEQ_MAX = (1 << 53) - 1


class QuotaCountsQuery(Query):
    """The last change of quota counts that the edge has, and the seconds to wait for the next."""

    after: Annotated[int, BeforeValidator(Whole(0, SEQ_MAX)), in_query(0, SEQ_MAX)] = 0
    """The number of the last change that the edge has; by default all changes are sent."""
    wait: Annotated[int, BeforeValidator(Whole(0, DIRECTORY_WAIT_SECONDS_MAX)), in_query(0, 30)] = 0
    """The seconds to wait if there is no change yet."""


class QuotaCountEntry(TypedDict):
    """The count of a quota in the ledger, for a day or a month in its time zone."""

    seq: int
    """The number of the change."""
    customer: str
    """The customer, by name."""
    meter: str
    """The meter of the quota."""
    per: Literal["day", "month"]
    """The period of the quota: `day` or `month`."""
    timezone: str
    """The time zone whose midnight starts a period, such as Europe/Berlin."""
    period: int
    """The number of the counted day or month."""
    used: int
    """The units that the ledger has counted in that period."""


class QuotaCounts(TypedDict):
    """The changes of quotas that are nearly used up, oldest first. `newest` is the number of the latest change."""

    newest: int
    """The number of the latest change."""
    quotas: list[QuotaCountEntry]
    """The changes after the one named in the query, oldest first."""


class QuotaHandlers(Handlers):
    """Handlers of quotas and allocations."""

    def apply_settings(self, settings: CollectorSettings) -> None:
        """Count by the tiers, meters and customers of these settings."""
        self._resources.quotas.use(settings)

    @get(
        "/v1/customers/{customer}/quotas",
        roles=READERS | OWN,
        errors={409: "The tier of the customer is not configured here."},
    )
    async def list_quotas(self, call: Call[Query, Nothing]) -> QuotaList:
        """List the quotas of a customer with usage and projection."""
        now = usage.edge_time()
        async with self._database.reading(whole=True) as connection:
            quotas = await customer_quotas.get_quotas(connection, call.path("customer"), self._settings)
            meters = self._settings.meters
            responses = []
            for status in (await usage.fetch_statuses(connection, [quotas], meters, now))[quotas.customer]:
                projected = await usage.fetch_projection(connection, quotas.customer, status, meters, quotas.since, now)
                responses.append(_to_held_quota(status, projected, meters))
        return {"customer": quotas.customer, "quotas": responses}

    @get("/v1/directory/quotas", roles=EDGE)
    async def fetch_counts(self, call: Call[QuotaCountsQuery, Nothing]) -> QuotaCounts:
        """Fetch the counts of quotas that are nearly used up. The answer waits until there are newer ones."""
        newest, changes = await self._resources.quotas.behind(call.query.after, call.query.wait)
        return {
            "newest": newest,
            "quotas": [cast(QuotaCountEntry, {"seq": seq, **count._asdict()}) for seq, count in changes],
        }

    @get(
        "/v1/customers/{customer}/holdings/{meter}",
        roles=SERVICE | READERS | OWN,
        errors={409: "The tier of the customer is not configured here."},
    )
    async def list_allocations(self, call: Call[AllocationsQuery, Nothing]) -> AllocationList:
        """List the items that a customer has allocated from a quota."""
        limit = call.query.limit
        async with self._database.reading(whole=True) as connection:
            quotas, meter = await self._get_quotas(connection, call)
            rows = await allocations.list_allocations(connection, quotas.customer, meter, call.query.cursor, limit + 1)
            used = await allocations.count_allocations(connection, quotas.customer, meter)
        quota = quotas.find_quota(meter)
        page = parse_page(holdings.name, rows, limit, allocation_to_response, attrgetter("item"))
        return {
            "used": used,
            "allowed": None if quota is None else quota.included,
            "holdings": page,
            **next_page(page.next),
        }

    @put(
        "/v1/customers/{customer}/holdings/{meter}/{item}",
        roles=SERVICE,
        example={"ttl": "12h"},
        status=201,
        may_be_200=True,
        request_media={JSON: AllocateItemRequest},
        errors={
            409: "The quota is used up, the customer is being deleted, or its tier is not configured here.",
            422: "The item has no valid name, or a field is invalid.",
        },
    )
    async def allocate_item(self, call: Call[Query, Nothing]) -> Result[AllocatedItem] | web.Response:
        """Allocate an item, or renew it. The status is 201 if it is new, 409 if the quota is used up."""
        item, body = parse_item(call), await _read_allocation_request(call.request)
        async with self._database.writing() as connection:
            quotas, meter = await self._get_quotas(connection, call)
            if quotas.is_leaving:
                raise ChangeRejectedError(account_codes.CUSTOMER_DELETING, "the customer is being deleted")
            quota = quotas.find_quota(meter)
            allowed = None if quota is None or quota.cap == "soft" else quota.included
            stored = await self._store_item(connection, quotas.customer, meter, item)
            result = await allocations.allocate(
                self._database,
                connection,
                quotas.customer,
                meter,
                stored,
                allowed=allowed,
                seconds=body.ttl,
                token=call.holder.label,
            )
        target = f"{quotas.customer}/{meter}"
        changes = self._resources.allocation_changes
        changes.record(call.caller, target, taken=result.is_new, expired=result.expired)
        if result.is_new:
            self._resources.quotas.counted([(quotas.customer, meter)])
        counts = {"used": result.used, "allowed": None if quota is None else quota.included}
        if result.holding is None:
            return problem(account_codes.QUOTA_FULL, f"all {meter} of the plan are taken", also=counts)
        allocation = allocation_to_response(result.holding._replace(item=item))
        whole: AllocatedItem = {
            "customer": quotas.customer,
            "meter": meter,
            **allocation,
            "used": result.used,
            "allowed": counts["allowed"],
        }
        return Result(whole, status=201 if result.is_new else 200)

    @delete(
        "/v1/customers/{customer}/holdings/{meter}/{item}",
        roles=SERVICE,
        status=204,
        errors={409: "The tier of the customer is not configured here.", 422: "The item has no valid name."},
    )
    async def release_item(self, call: Call[Query, Nothing]) -> web.Response:
        """Release an item, whether it was allocated or not."""
        item = parse_item(call)
        async with self._database.writing() as connection:
            quotas, meter = await self._get_quotas(connection, call)
            stored = await self._store_item(connection, quotas.customer, meter, item)
            was_allocated = await allocations.release_allocation(connection, quotas.customer, meter, stored)
        target = f"{quotas.customer}/{meter}"
        self._resources.allocation_changes.record(call.caller, target, given_back=was_allocated)
        return web.Response(status=204)

    async def _store_item(self, connection: AsyncConnection, customer: str, meter: str, item: str) -> str:
        """Return an item in its stored form."""
        return await allocations.hash_holding(connection, customer, meter, item) if is_hashing(self._settings) else item

    async def _get_quotas(self, connection: AsyncConnection, call: AnyCall) -> tuple[CustomerQuotas, str]:
        """Return the quotas of the customer and the meter in a path. Raises ChangeRejectedError."""
        meter = self._settings.meters.get(name := call.path("meter"))
        if meter is None or meter.count != "holdings":
            raise ChangeRejectedError(
                account_codes.METER_NOT_FOUND, "there is no such meter of holdings in the collector's configuration"
            )
        return await customer_quotas.get_quotas(connection, call.path("customer"), self._settings), name


def parse_item(call: AnyCall) -> str:
    """Return the item in a path. Raises ChangeRejectedError."""
    item = call.path("item")
    if not ITEM.fullmatch(item):
        raise ChangeRejectedError(
            account_codes.ITEM_INVALID, "the id of an item has 1 to 200 visible ASCII characters, and no /"
        )
    return item


async def _read_allocation_request(request: web.Request) -> AllocateItemRequest:
    """Return the body of an allocation. It may be empty. Raises ChangeRejectedError and ProblemError."""
    body = await read_body(request, JSON_BYTES_MAX)
    try:
        fields = orjson.loads(body or b"{}")
    except orjson.JSONDecodeError as error:
        raise ChangeRejectedError(request_codes.BODY_NOT_JSON, f"the body is not JSON: {error}") from None
    return parse_body(AllocateItemRequest, fields)


def _to_held_quota(status: QuotaUsage, projected: QuotaProjection | None, meters: Mapping[str, Meter]) -> HeldQuota:
    """Return a quota with its usage and the requests that it limits, in the API's form."""
    quota, meter = status.quota, meters.get(status.quota.meter)
    held = quota if meter is None else get_selection(quota, meter)
    return {
        **status.to_response(projected),
        "kind": get_quota_kind(quota),
        "routes": list(held.routes),
        "scopes": list(held.scopes),
    }


def allocation_to_response(allocation: AllocationRow) -> AllocationResponse:
    """Return an allocation in the API's form."""
    return {
        "item": allocation.item,
        "taken_at": format_timestamp(allocation.taken_at),
        "expires_at": format_timestamp(allocation.expires_at),
    }


GROUP = Group(
    "quotas",
    "Quotas of customers, and the items that services allocate from them.",
    QuotaHandlers,
    parameters={
        "item": PathParameter("The item, by the service's own name for it."),
        "meter": PathParameter("The name of the meter, such as requests."),
    },
)
