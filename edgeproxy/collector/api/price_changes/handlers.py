"""Price changes, and the existing versions of plans."""

import time
from collections.abc import Mapping, Sequence
from operator import attrgetter

from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base.tasks import run_in_thread
from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.accounts.change import INVALID_FIELDS, ChangeRejectedError, reject_field
from edgeproxy.collector.accounts.ids import now_ms
from edgeproxy.collector.api.billing.handlers import plan_to_response
from edgeproxy.collector.api.changes import ChangeResult
from edgeproxy.collector.api.customer_billing import CustomerBillingHandlers, CustomerQuery, get_billing
from edgeproxy.collector.api.endpoint import Call, Nothing, Query
from edgeproxy.collector.api.field_types import ChangeQuery
from edgeproxy.collector.api.price_changes.models import (
    CurrencyEffectResponse,
    PriceChangeResponse,
    PriceChangesQuery,
    PriceEffectResponse,
    PriceMoveResponse,
    SchedulePriceChangeRequest,
    SubscriberEffectResponse,
    WithdrawPriceChangeRequest,
)
from edgeproxy.collector.api.price_changes.terms import compare_terms
from edgeproxy.collector.api.request_reader import ERRORS_MAX
from edgeproxy.collector.api.responses import answer, answer_page
from edgeproxy.collector.billing.reports import price_effect
from edgeproxy.collector.billing.reports.price_effect import PriceEffect, SubscriberEffect
from edgeproxy.collector.billing.subscriptions import plan_versions, price_changes, subscription_rows
from edgeproxy.collector.billing.subscriptions.plan_versions import RecordedVersion
from edgeproxy.collector.billing.subscriptions.price_changes import PreparedChange, PriceChangeRow
from edgeproxy.collector.billing.subscriptions.price_moves import PriceMove
from edgeproxy.collector.database.billing_tables import plan_versions as version_rows
from edgeproxy.collector.database.billing_tables import price_changes as price_changes_table
from edgeproxy.collector.database.unreadable_rows import find_cursor, parse_rows, reading_row, skip_unreadable
from edgeproxy.config.collector import references
from edgeproxy.config.collector.catalog import Plan
from edgeproxy.config.collector.load import load_plans_text
from edgeproxy.config.collector.plan_terms import write_terms
from edgeproxy.config.collector.settings import CollectorSettings
from edgeproxy.config.problems import ConfigError, format_path


class PriceChangeHandlers(CustomerBillingHandlers):
    """Handlers of price changes."""

    async def list_changes(self, call: Call[PriceChangesQuery, Nothing]) -> web.Response:
        """List price changes, newest first."""
        get_billing(self._settings)
        query = call.query
        async with self._database.reading(whole=True) as connection:
            rows = await price_changes.list_changes(connection, query.cursor, query.limit + 1)
            loaded = [await skip_unreadable(_load_response(connection, row)) for row in rows[: query.limit]]
        changes = [change for change in loaded if change is not None]
        return answer_page("price_changes", changes, find_cursor(rows, query.limit, attrgetter("id")))

    async def fetch_change(self, call: Call[Query, Nothing]) -> web.Response:
        """Fetch a price change and, while it is scheduled, its effect."""
        get_billing(self._settings)
        async with self._database.reading(whole=True) as connection:
            row = await price_changes.get_change(connection, call.path("change"))
            response = await _load_response(connection, row)
            moves = await price_changes.fetch_moves_of_change(connection, row.id)
            plans = await _fetch_plans(connection, moves)
        if row.state == price_changes.SCHEDULED:
            response["effect"] = await self._compute_effect(moves, plans)
        return answer(200, response)

    async def schedule_change(self, call: Call[ChangeQuery, SchedulePriceChangeRequest]) -> web.Response:
        """Schedule a price change. A dry run shows its effect."""
        get_billing(self._settings)
        body = call.body
        written = await run_in_thread("read plans", lambda: parse_plans(body.plans, self._settings))
        if call.query.dry_run:
            return await self._try_change(call, written)

        async def make(connection: AsyncConnection) -> ChangeResult:
            prepared = await self._prepare(connection, body, written, lock=True)
            row = await price_changes.schedule_change(connection, call.caller, prepared, body.why)
            return ChangeResult(201, await _load_response(connection, row))

        return await self._change(call, make, creates=True)

    async def _try_change(
        self, call: Call[ChangeQuery, SchedulePriceChangeRequest], written: Mapping[str, Plan]
    ) -> web.Response:
        """Answer with a change and its effect, without writing anything."""
        body = call.body
        async with self._database.reading(whole=True) as connection:
            prepared = await self._prepare(connection, body, written)
            moves = await _moves_to_response(connection, prepared.moves, prepared.plans)
        row = PriceChangeRow("", body.at, price_changes.SCHEDULED, body.why, now_ms(), call.caller.actor)
        response = change_to_response(row, moves)
        response["id"], response["digest"] = None, prepared.digest
        response["effect"] = await self._compute_effect(prepared.moves, prepared.plans)
        return answer(200, response)

    async def _prepare(
        self,
        connection: AsyncConnection,
        body: SchedulePriceChangeRequest,
        written: Mapping[str, Plan],
        *,
        lock: bool = False,
    ) -> PreparedChange:
        if body.at <= time.time():
            raise reject_field("at", "is not in the future: subscribers would have the new version already")
        prepared = await price_changes.prepare_change(
            connection, body.plans, written, self._settings.plans, body.at, lock=lock
        )
        if body.digest not in (None, prepared.digest):
            raise ChangeRejectedError(409, "this is not what the dry run has shown: look at another one first")
        return prepared

    async def _compute_effect(self, moves: Sequence[PriceMove], plans: Mapping[str, Plan]) -> PriceEffectResponse:
        effect = await price_effect.compute_effect(self._database, moves, plans, self._settings.meters)
        return effect_to_response(effect)

    async def withdraw_change(self, call: Call[ChangeQuery, WithdrawPriceChangeRequest]) -> web.Response:
        """Withdraw a scheduled price change."""
        get_billing(self._settings)

        async def make(connection: AsyncConnection) -> ChangeResult:
            row = await price_changes.withdraw_change(
                connection, call.caller, call.path("change"), call.body.why, time.time()
            )
            return ChangeResult(200, await _load_response(connection, row))

        return await self._change(call, make, creates=True)

    # ---- versions

    async def list_versions(self, _: Call[Query, Nothing]) -> web.Response:
        """List all versions of plans, with their subscribers."""
        get_billing(self._settings)
        now = time.time()
        async with self._database.reading(whole=True) as connection:
            sold = await plan_versions.fetch_plans_on_sale(connection, self._settings.plans, now)
            begins = {move.after: move.at for move in await plan_versions.fetch_moves(connection)}
            recorded = await plan_versions.fetch_recorded(connection)

        def to_response(one: RecordedVersion) -> dict[str, object]:
            at = begins.get(one.version)
            state = "sold" if one.version in sold else "scheduled" if at is not None and at > now else "former"
            begins_at = None if at is None else format_timestamp(at * 1000)
            figures = {"begins_at": begins_at, "subscribers": one.subscribers}
            created = {"created_at": format_timestamp(one.created_at), "terms": write_terms(one.plan)}
            return {**plan_to_response(one.version, one.plan), "state": state, **figures, **created}

        versions = parse_rows(version_rows.name, recorded, to_response, attrgetter("version"))
        return answer(200, {"versions": versions})

    async def fetch_subscribed_plan(self, call: Call[CustomerQuery, Nothing]) -> web.Response:
        """Fetch a customer's current terms, and the terms after a scheduled price change."""
        customer = self._get_customer(call.holder, call.query)
        async with self._database.reading(whole=True) as connection:
            loaded = await subscription_rows.get_by_customer(connection, customer)
        last, upcoming = loaded.current.last, loaded.current.find_upcoming_move()
        following = None
        if upcoming is not None:
            before, after = ((version, loaded.plans[version]) for version in (upcoming.before, upcoming.after))
            following = {
                "at": format_timestamp(upcoming.at * 1000),
                "plan": plan_to_response(*after),
                "changes": compare_terms(before, after, has_others=False),
            }
        return answer(200, {"plan": plan_to_response(last.version, last.plan), "price_change": following})


def parse_plans(text: str, settings: CollectorSettings) -> dict[str, Plan]:
    """Parse plans and check them like those in the configuration.

    Raises ChangeRejectedError with the place of each fault.
    """
    try:
        plans = load_plans_text("plans", text).plans
    except ConfigError as error:
        faults = [
            ("plans", f"line {one.line}: {one.field}: {one.what}, {one.hint}") for one in error.problems[:ERRORS_MAX]
        ]
        raise ChangeRejectedError(422, INVALID_FIELDS, faults) from None
    plan_faults = [
        ("plans" if fault.path == ("billing", "plans") else format_path(fault.path), f"{fault.what}, {fault.hint}")
        for fault in references.find_plan_faults(settings, plans)
    ]
    if plan_faults:
        raise ChangeRejectedError(422, INVALID_FIELDS, plan_faults[:ERRORS_MAX])
    return plans


async def _fetch_plans(connection: AsyncConnection, moves: Sequence[PriceMove]) -> dict[str, Plan]:
    return await plan_versions.fetch_plans(connection, [name for move in moves for name in (move.before, move.after)])


async def _load_response(connection: AsyncConnection, row: PriceChangeRow) -> PriceChangeResponse:
    moves = await price_changes.fetch_moves_of_change(connection, row.id)
    plans = await _fetch_plans(connection, moves)
    move_responses = await _moves_to_response(connection, moves, plans)
    with reading_row(price_changes_table.name, row.id):
        return change_to_response(row, move_responses)


async def _moves_to_response(
    connection: AsyncConnection, moves: Sequence[PriceMove], plans: Mapping[str, Plan]
) -> list[PriceMoveResponse]:
    counts = await price_changes.count_subscribers(connection, moves)
    return [
        {
            "plan": move.plan,
            "before": move.before,
            "after": move.after,
            "subscribers": counts[move.plan],
            "changes": compare_terms((move.before, plans[move.before]), (move.after, plans[move.after])),
        }
        for move in moves
    ]


def change_to_response(row: PriceChangeRow, moves: list[PriceMoveResponse]) -> PriceChangeResponse:
    """Return a price change in the API's form."""
    return {
        "id": row.id,
        "at": format_timestamp(row.at * 1000),
        "state": row.state,  # type: ignore[typeddict-item]
        "why": row.why,
        "created_at": format_timestamp(row.created_at),
        "created_by": row.created_by,
        "decided_at": format_timestamp(row.decided_at),
        "moves": moves,
    }


def effect_to_response(effect: PriceEffect) -> PriceEffectResponse:
    """Return the effect of a price change in the API's form."""
    rated = [one for one in effect.effects if one.before is not None]
    return {
        "subscribers": effect.subscribers,
        "rated": len(rated),
        "currencies": [_sum_effects(code, rated) for code in sorted({one.currency for one in rated})],
        "customers": [_subscriber_to_response(one) for one in effect.effects],
    }


def _sum_effects(currency: str, rated: Sequence[SubscriberEffect]) -> CurrencyEffectResponse:
    own = [one for one in rated if one.currency == currency]
    before, after = sum(one.before or 0 for one in own), sum(one.after or 0 for one in own)
    return {"currency": currency, "before": before, "after": after, "difference": after - before}


def _subscriber_to_response(one: SubscriberEffect) -> SubscriberEffectResponse:
    return {
        "customer": one.customer,
        "before_plan": one.before_version,
        "plan": one.after_version,
        "period_start": format_timestamp(one.period.start * 1000),
        "period_end": format_timestamp(one.period.end * 1000),
        "before": one.before,
        "after": one.after,
        "difference": one.difference,
        "currency": one.currency,
    }
