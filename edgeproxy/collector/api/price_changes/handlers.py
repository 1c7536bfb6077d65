"""Price changes, and the existing versions of plans."""

import time
from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import cast

from pydantic import JsonValue
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base.tasks import run_in_thread
from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.accounts.change import ChangeRejectedError, reject_field, reject_fields
from edgeproxy.collector.accounts.ids import now_ms
from edgeproxy.collector.api.billing.handlers import plan_to_response
from edgeproxy.collector.api.customer_billing import CustomerBillingHandlers, CustomerQuery, get_billing
from edgeproxy.collector.api.endpoint import (
    BILLING,
    CREATE,
    MONEY_READERS,
    OWN,
    AnyCall,
    Call,
    Nothing,
    Query,
    get,
    post,
)
from edgeproxy.collector.api.field_types import ChangeQuery
from edgeproxy.collector.api.group import Group, PathParameter
from edgeproxy.collector.api.price_changes.models import (
    CurrencyEffectResponse,
    NextTerms,
    PlanVersionList,
    PlanVersionResponse,
    PriceChangeList,
    PriceChangeResponse,
    PriceChangesQuery,
    PriceEffectResponse,
    PriceMoveResponse,
    SchedulePriceChangeRequest,
    SubscribedPlanResponse,
    SubscriberEffectResponse,
    WithdrawPriceChangeRequest,
)
from edgeproxy.collector.api.price_changes.terms import compare_terms
from edgeproxy.collector.api.request_limits import RequestRate
from edgeproxy.collector.api.request_reader import ERRORS_MAX
from edgeproxy.collector.api.responses import Result, next_page
from edgeproxy.collector.billing.reports import price_effect
from edgeproxy.collector.billing.reports.price_effect import PriceEffect, SubscriberEffect
from edgeproxy.collector.billing.subscriptions import plan_versions, price_changes, subscription_rows
from edgeproxy.collector.billing.subscriptions.plan_versions import RecordedVersion
from edgeproxy.collector.billing.subscriptions.price_changes import PreparedChange, PriceChangeRow
from edgeproxy.collector.billing.subscriptions.price_moves import PriceMove
from edgeproxy.collector.database.billing_tables import plan_versions as version_rows
from edgeproxy.collector.database.billing_tables import price_changes as price_changes_table
from edgeproxy.collector.database.unreadable_rows import find_cursor, parse_rows, reading_row, skip_unreadable
from edgeproxy.collector.problems import billing_codes
from edgeproxy.collector.problems.coded_error import FieldFault
from edgeproxy.config.collector import references
from edgeproxy.config.collector.catalog import Plan
from edgeproxy.config.collector.load import load_plans_text
from edgeproxy.config.collector.plan_terms import write_terms
from edgeproxy.config.collector.settings import CollectorSettings
from edgeproxy.config.field_codes import PAST
from edgeproxy.config.problems import ConfigError, format_path

PLANS = """\
plans:
  standard@2:
    fee: "109"
    meters: {api_calls: {included: 100000, price: "0.002"}}
"""


class PriceChangeHandlers(CustomerBillingHandlers):
    """Handlers of price changes."""

    def check(self, call: AnyCall) -> None:
        """Raise an error if nothing is sold here."""
        get_billing(self._settings)
        super().check(call)

    @get("/billing/price-changes", roles=MONEY_READERS, errors={404: "Billing is not configured."})
    async def list_changes(self, call: Call[PriceChangesQuery, Nothing]) -> PriceChangeList:
        """List price changes, newest first."""
        query = call.query
        async with self._database.reading(whole=True) as connection:
            rows = await price_changes.list_changes(connection, query.cursor, query.limit + 1)
            loaded = [await skip_unreadable(_load_response(connection, row)) for row in rows[: query.limit]]
        changes = [change for change in loaded if change is not None]
        return {"price_changes": changes, **next_page(find_cursor(rows, query.limit, attrgetter("id")))}

    @post(
        "/billing/price-changes",
        roles=BILLING,
        example={"plans": PLANS, "at": "2099-01-01", "why": "prices of 2099"},
        status=201,
        change=CREATE,
        errors={
            404: "Billing is not configured.",
            409: "The price change differs from the dry run, or others are changing it now.",
        },
        is_sensitive=True,
        rate=RequestRate(10, "address"),
    )
    async def schedule_change(self, call: Call[ChangeQuery, SchedulePriceChangeRequest]) -> Result[PriceChangeResponse]:
        """Schedule a price change. A dry run shows the cost of each subscriber's last full period under it."""
        body = call.body
        written = await run_in_thread("read plans", lambda: parse_plans(body.plans, self._settings))
        if call.query.dry_run:
            return await self._try_change(call, written)

        async def make(connection: AsyncConnection) -> Result[PriceChangeResponse]:
            prepared = await self._prepare(connection, body, written, lock=True)
            row = await price_changes.schedule_change(connection, call.caller, prepared, body.why)
            return Result(await _load_response(connection, row))

        return await self._change(call, make)

    async def _try_change(
        self, call: Call[ChangeQuery, SchedulePriceChangeRequest], written: Mapping[str, Plan]
    ) -> Result[PriceChangeResponse]:
        """Answer with a change and its effect, without writing anything."""
        body = call.body
        async with self._database.reading(whole=True) as connection:
            prepared = await self._prepare(connection, body, written)
            moves = await _moves_to_response(connection, prepared.moves, prepared.plans)
        row = PriceChangeRow("", body.at, price_changes.SCHEDULED, body.why, now_ms(), call.caller.actor)
        response = change_to_response(row, moves)
        response["id"], response["digest"] = None, prepared.digest
        response["effect"] = await self._compute_effect(prepared.moves, prepared.plans)
        return Result(response, status=200)

    async def _prepare(
        self,
        connection: AsyncConnection,
        body: SchedulePriceChangeRequest,
        written: Mapping[str, Plan],
        *,
        lock: bool = False,
    ) -> PreparedChange:
        if body.at <= time.time():
            raise reject_field("at", "is not in the future: subscribers would have the new version already", PAST)
        prepared = await price_changes.prepare_change(
            connection, body.plans, written, self._settings.plans, body.at, lock=lock
        )
        if body.digest not in (None, prepared.digest):
            raise ChangeRejectedError(
                billing_codes.DRY_RUN_OUTDATED, "this is not what the dry run has shown: look at another one first"
            )
        return prepared

    async def _compute_effect(self, moves: Sequence[PriceMove], plans: Mapping[str, Plan]) -> PriceEffectResponse:
        effect = await price_effect.compute_effect(self._database, moves, plans, self._settings.meters)
        return effect_to_response(effect)

    @get("/billing/price-changes/{change}", roles=MONEY_READERS, rate=RequestRate(10, "address"))
    async def fetch_change(self, call: Call[Query, Nothing]) -> PriceChangeResponse:
        """Fetch a price change and, while it is scheduled, its effect on each subscriber."""
        async with self._database.reading(whole=True) as connection:
            row = await price_changes.get_change(connection, call.path("change"))
            response = await _load_response(connection, row)
            moves = await price_changes.fetch_moves_of_change(connection, row.id)
            plans = await _fetch_plans(connection, moves)
        if row.state == price_changes.SCHEDULED:
            response["effect"] = await self._compute_effect(moves, plans)
        return response

    @post(
        "/billing/price-changes/{change}/withdraw",
        roles=BILLING,
        example={"why": "prices stay"},
        change=CREATE,
        errors={409: "The price change is done or withdrawn already."},
        is_sensitive=True,
    )
    async def withdraw_change(
        self, call: Call[ChangeQuery, WithdrawPriceChangeRequest], connection: AsyncConnection
    ) -> Result[PriceChangeResponse]:
        """Withdraw a price change, up to a minute before its time."""
        row = await price_changes.withdraw_change(
            connection, call.caller, call.path("change"), call.body.why, time.time()
        )
        return Result(await _load_response(connection, row))

    # ---- versions

    @get("/billing/plan-versions", roles=MONEY_READERS, errors={404: "Billing is not configured."})
    async def list_versions(self, _: Call[Query, Nothing]) -> PlanVersionList:
        """List all recorded versions of plans, with their subscribers."""
        now = time.time()
        async with self._database.reading(whole=True) as connection:
            sold = await plan_versions.fetch_plans_on_sale(connection, self._settings.plans, now)
            begins = {move.after: move.at for move in await plan_versions.fetch_moves(connection)}
            recorded = await plan_versions.fetch_recorded(connection)

        def to_response(one: RecordedVersion) -> PlanVersionResponse:
            at = begins.get(one.version)
            return {
                **plan_to_response(one.version, one.plan),
                "state": "sold" if one.version in sold else "scheduled" if at is not None and at > now else "former",
                "begins_at": None if at is None else format_timestamp(at * 1000),
                "subscribers": one.subscribers,
                "created_at": format_timestamp(one.created_at),
                "terms": cast(dict[str, JsonValue], write_terms(one.plan)),
            }

        versions = parse_rows(version_rows.name, recorded, to_response, attrgetter("version"))
        return {"versions": versions}

    @get(
        "/billing/subscription/plan",
        roles=MONEY_READERS | OWN,
        errors={404: "Billing is not configured, or the customer or its subscription does not exist."},
    )
    async def fetch_subscribed_plan(self, call: Call[CustomerQuery, Nothing]) -> SubscribedPlanResponse:
        """Fetch the terms of a customer's plan, and the terms after the next price change."""
        customer = self._get_customer(call)
        async with self._database.reading(whole=True) as connection:
            loaded = await subscription_rows.get_by_customer(connection, customer)
        last, upcoming = loaded.current.last, loaded.current.find_upcoming_move()
        following: NextTerms | None = None
        if upcoming is not None:
            before, after = ((version, loaded.plans[version]) for version in (upcoming.before, upcoming.after))
            following = {
                "at": format_timestamp(upcoming.at * 1000),
                "plan": plan_to_response(*after),
                "changes": compare_terms(before, after, has_others=False),
            }
        return {"plan": plan_to_response(last.version, last.plan), "price_change": following}


def parse_plans(text: str, settings: CollectorSettings) -> dict[str, Plan]:
    """Parse plans and check them like those in the configuration.

    Raises ChangeRejectedError with the place of each fault.
    """
    try:
        plans = load_plans_text("plans", text).plans
    except ConfigError as error:
        faults = [
            FieldFault("plans", f"line {problem.line}: {problem.field}: {problem.what}, {problem.hint}")
            for problem in error.problems[:ERRORS_MAX]
        ]
        raise reject_fields(faults) from None
    plan_faults = [
        FieldFault(
            "plans" if fault.path == ("billing", "plans") else format_path(fault.path), f"{fault.what}, {fault.hint}"
        )
        for fault in references.find_plan_faults(settings, plans)
    ]
    if plan_faults:
        raise reject_fields(plan_faults[:ERRORS_MAX])
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
    rated = [subscriber for subscriber in effect.effects if subscriber.before is not None]
    return {
        "subscribers": effect.subscribers,
        "rated": len(rated),
        "currencies": [_sum_effects(code, rated) for code in sorted({subscriber.currency for subscriber in rated})],
        "customers": [_subscriber_to_response(subscriber) for subscriber in effect.effects],
    }


def _sum_effects(currency: str, rated: Sequence[SubscriberEffect]) -> CurrencyEffectResponse:
    own = [subscriber for subscriber in rated if subscriber.currency == currency]
    before, after = sum(subscriber.before or 0 for subscriber in own), sum(subscriber.after or 0 for subscriber in own)
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


GROUP = Group(
    "price-changes",
    "New versions of plans. Subscribers move to them from a set time on. Amounts are in the smallest unit, such "
    "as cents.",
    PriceChangeHandlers,
    rate=RequestRate(100, "customer"),
    parameters={"change": PathParameter("The id of the price change.")},
)
