"""How customers stand with their quotas, and the places that what exists takes."""

from typing import Any

import orjson
from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.accounts.audit import Tallies
from edgeproxy.collector.accounts.change import ChangeRejectedError
from edgeproxy.collector.api.endpoint import Call, Nothing, Query
from edgeproxy.collector.api.quota_models import HoldingsQuery, HoldingTaken, QuotaNewsQuery
from edgeproxy.collector.api.request_reader import JSON_BYTES_MAX, body_of, parse_body
from edgeproxy.collector.api.responses import answer, problem
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.jobs.quotas import QuotaMonitor
from edgeproxy.collector.quotas import allocations, customer_quotas, usage
from edgeproxy.collector.quotas.allocations import ITEM, Allocation
from edgeproxy.collector.quotas.customer_quotas import CustomerQuotas
from edgeproxy.config.collector.settings import CollectorSettings


class QuotaHandlers:
    """Tells of quotas; takes places and gives them back."""

    def __init__(self, database: Database, watch: QuotaMonitor) -> None:
        self._database = database
        self.places = Tallies(database, "holdings.change")
        """Who has taken places lately and given them back; somebody has to `write` it."""
        self._watch = watch
        self._settings: CollectorSettings

    def use(self, settings: CollectorSettings) -> None:
        """Go by the tiers, meters and customers of these."""
        self._settings = settings
        self._watch.use(settings)

    async def news(self, call: Call[QuotaNewsQuery, Nothing]) -> web.Response:
        """Send what is new of quotas that are nearly used up, once there is something or the time is over."""
        newest, changes = await self._watch.behind(call.query.after, call.query.wait)
        return answer(200, {"newest": newest, "quotas": [{"seq": seq, **count._asdict()} for seq, count in changes]})

    async def quotas(self, call: Call[Query, Nothing]) -> web.Response:
        """Tell how a customer stands with each quota."""
        now = usage.edge_time()
        async with self._database.reading(whole=True) as connection:
            held = await customer_quotas.get_quotas(connection, call.path("customer"), self._settings)
            statuses = await usage.fetch_statuses(connection, [held], self._settings.meters, now)
        return answer(
            200, {"customer": held.customer, "quotas": [status.to_response(now) for status in statuses[held.customer]]}
        )

    async def take(self, call: Call[Query, Nothing]) -> web.Response:
        """Take a place."""
        item, body = get_item(call), await _read_allocation_request(call.request)
        async with self._database.writing() as connection:
            held, meter = await self._of(connection, call)
            if held.is_leaving:
                raise ChangeRejectedError(409, "the customer is being deleted")
            quota = held.find_quota(meter)
            allowed = None if quota is None or quota.cap == "soft" else quota.included
            taken = await allocations.allocate(
                self._database,
                connection,
                held.customer,
                meter,
                item,
                allowed=allowed,
                seconds=body.ttl,
                token=call.holder.label,
            )
        self.places.record(call.caller, f"{held.customer}/{meter}", taken=taken.is_new, expired=taken.expired)
        counted = {"used": taken.used, "allowed": None if quota is None else quota.included}
        if taken.holding is None:
            return problem(409, f"all {meter} of the plan are taken", also=counted)
        about = {"customer": held.customer, "meter": meter}
        return answer(201 if taken.is_new else 200, {**about, **allocation_to_response(taken.holding), **counted})

    async def give_back(self, call: Call[Query, Nothing]) -> web.Response:
        """Give a place back."""
        item = get_item(call)
        async with self._database.writing() as connection:
            held, meter = await self._of(connection, call)
            was_there = await allocations.release(connection, held.customer, meter, item)
        self.places.record(call.caller, f"{held.customer}/{meter}", given_back=was_there)
        return web.Response(status=204)

    async def page(self, call: Call[HoldingsQuery, Nothing]) -> web.Response:
        """List the places that are taken."""
        limit = call.query.limit
        async with self._database.reading(whole=True) as connection:
            held, meter = await self._of(connection, call)
            rows = await allocations.list_allocations(connection, held.customer, meter, call.query.cursor, limit + 1)
            used = await allocations.used(connection, held.customer, meter)
        quota = held.find_quota(meter)
        more: dict[str, Any] = {"next": rows[limit - 1].item} if len(rows) > limit else {}
        counted = {"used": used, "allowed": None if quota is None else quota.included}
        return answer(200, {"holdings": [allocation_to_response(one) for one in rows[:limit]], **counted, **more})

    async def _of(self, connection: AsyncConnection, call: Call[Any, Nothing]) -> tuple[CustomerQuotas, str]:
        """Return the customer and the meter of a path; raises ProblemError."""
        meter = self._settings.meters.get(name := call.path("meter"))
        if meter is None or meter.count != "holdings":
            raise ChangeRejectedError(404, "there is no such meter of holdings in the collector's configuration")
        return await customer_quotas.get_quotas(connection, call.path("customer"), self._settings), name


def get_item(call: Call[Any, Any]) -> str:
    """Return the item of a path; raises ProblemError."""
    item = call.path("item")
    if not ITEM.fullmatch(item):
        raise ChangeRejectedError(422, "the id of an item has 1 to 200 visible ASCII characters, and no /")
    return item


async def _read_allocation_request(request: web.Request) -> HoldingTaken:
    """Return what is sent with a PUT, which may be nothing; raises ProblemError."""
    sent = await body_of(request, JSON_BYTES_MAX)
    try:
        fields = orjson.loads(sent or b"{}")
    except orjson.JSONDecodeError as error:
        raise ChangeRejectedError(400, f"the body is not JSON: {error}") from None
    return parse_body(HoldingTaken, fields)


def allocation_to_response(holding: Allocation) -> dict[str, Any]:
    """Tell of a place as the API does."""
    return {
        "item": holding.item,
        "taken_at": format_timestamp(holding.taken_at),
        "expires_at": format_timestamp(holding.expires_at),
    }
