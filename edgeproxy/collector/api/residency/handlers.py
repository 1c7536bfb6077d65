"""Sums of residencies, and moves of customers between them."""

import asyncio
import time
from typing import cast

import sqlalchemy as sa
from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.accounts import audit, customers
from edgeproxy.collector.accounts.audit import AuditEntry
from edgeproxy.collector.accounts.change import reject_field
from edgeproxy.collector.accounts.ids import is_id, now_ms
from edgeproxy.collector.api.changes import ChangeHandlers, ChangeResult
from edgeproxy.collector.api.endpoint import Call, Nothing, Query
from edgeproxy.collector.api.field_types import ChangeQuery
from edgeproxy.collector.api.residency.models import (
    ArrivalRequest,
    ArrivingTransfer,
    BeginMoveRequest,
    DepartureQuery,
    MovesQuery,
    MoveStepRequest,
)
from edgeproxy.collector.api.responses import answer, problem
from edgeproxy.collector.database.schema import edges
from edgeproxy.collector.residency import aggregates, arrival, credit_transfers, departure, moves
from edgeproxy.collector.residency.aggregates import Aggregates
from edgeproxy.collector.residency.credit_transfers import Transfer
from edgeproxy.collector.residency.documents import build_document, parse_document
from edgeproxy.collector.residency.peers import FRESH_SECONDS, PeerReader, ResidencyStatus
from edgeproxy.config.collector.settings import CollectorSettings


class ResidencyHandlers(ChangeHandlers):
    """Handlers of sums, and of moves at both residencies."""

    def apply_settings(self, settings: CollectorSettings) -> None:
        """Use the residencies of new settings."""
        super().apply_settings(settings)
        self._peers = PeerReader(settings.residencies)
        self._own: tuple[float, Aggregates] | None = None
        self._own_lock = asyncio.Lock()

    async def list_residencies(self, call: Call[Query, Nothing]) -> web.Response:
        """List all residencies with their sums."""
        residency = departure.get_residency(self._settings)
        async with self._database.reading() as connection:
            regions = (await connection.execute(sa.select(edges.c.region).distinct())).scalars()
            known = frozenset(region for region in regions if region)
        others, (computed_at, own) = await asyncio.gather(
            self._peers.fetch_all(self._settings.meters.keys(), known), self._fetch_own(residency)
        )
        here: ResidencyStatus = {
            "residency": residency,
            "state": "ok",
            "as_of": format_timestamp(int(computed_at * 1000)),
            "aggregates": own,
        }
        return answer(200, {"residencies": [here, *others]})

    async def fetch_aggregates(self, call: Call[Query, Nothing]) -> web.Response:
        """Fetch the sums of this residency, with an audit entry."""
        _, own = await self._fetch_own(departure.get_residency(self._settings))
        async with self._database.writing() as connection:
            await audit.append_entry(connection, call.caller, AuditEntry("residency.aggregates", own["residency"]))
        response = answer(200, own)
        response.headers["Cache-Control"] = "no-store"
        return response

    async def _fetch_own(self, residency: str) -> tuple[float, Aggregates]:
        """Return the sums of this residency with their Unix second. They are computed once per FRESH_SECONDS."""
        async with self._own_lock:
            now = time.time()
            if self._own is None or not 0 <= now - self._own[0] < FRESH_SECONDS:
                async with self._database.reading(whole=True) as connection:
                    self._own = now, await aggregates.fetch_aggregates(connection, residency, now)
            return self._own

    async def list_moves(self, call: Call[MovesQuery, Nothing]) -> web.Response:
        """List moves."""
        async with self._database.reading() as connection:
            return answer(
                200,
                {"residency": self._settings.residency, "moves": await moves.list_moves(connection, call.query.limit)},
            )

    async def preview_move(self, call: Call[DepartureQuery, Nothing]) -> web.Response:
        """Show the effects of a move."""
        query = call.query
        async with self._database.reading(whole=True) as connection:
            body = await departure.preview(
                connection, call.path("customer"), query.residency, self._settings, end_plan=query.end_plan
            )
        return answer(200, body)

    async def begin_move(self, call: Call[ChangeQuery, BeginMoveRequest]) -> web.Response:
        """Begin a move, or continue it."""

        async def make(connection: AsyncConnection) -> ChangeResult:
            ref, body = call.path("customer"), call.body
            return ChangeResult(
                200,
                await departure.begin(connection, call.caller, ref, body.to, self._settings, end_plan=body.end_plan),
            )

        return await self._change(call, make)

    async def fetch_document(self, call: Call[Query, Nothing]) -> web.Response:
        """Fetch the data that moves with a customer."""
        departure.get_residency(self._settings)
        async with self._database.reading(whole=True) as connection:
            row = await customers.get_row(connection, call.path("customer"))
            document = await build_document(connection, row, now_ms())
        async with self._database.writing() as connection:
            await audit.append_entry(connection, call.caller, AuditEntry("customer.move_document", row.name))
        response = answer(200, {"document": document})
        response.headers["Cache-Control"] = "no-store"
        return response

    async def take_step(self, call: Call[ChangeQuery, MoveStepRequest]) -> web.Response:
        """Take a step of a move."""

        async def make(connection: AsyncConnection) -> ChangeResult:
            ref, body = call.path("customer"), call.body
            return ChangeResult(
                200, await departure.take_step(connection, call.caller, ref, body.step, body.peer, self._settings)
            )

        return await self._change(call, make)

    async def put_arrival(self, call: Call[ChangeQuery, ArrivalRequest]) -> web.Response:
        """Take over a customer."""
        body, id_ = call.body, self._get_move(call.path("move"))
        document = parse_document(body.document)

        async def make(connection: AsyncConnection) -> ChangeResult:
            return ChangeResult(
                200,
                await arrival.arrive(
                    connection, call.caller, id_, body.residency, document, self._settings, is_last=body.is_last
                ),
            )

        return await self._change(call, make)

    async def withdraw_arrival(self, call: Call[ChangeQuery, Nothing]) -> web.Response:
        """Withdraw an incomplete arrival."""
        id_, is_missing = self._get_move(call.path("move")), False

        async def make(connection: AsyncConnection) -> ChangeResult:
            nonlocal is_missing
            withdrawn = await arrival.withdraw(connection, call.caller, id_)
            is_missing = withdrawn is None
            return ChangeResult(200, withdrawn or {})

        response = await self._change(call, make)
        if is_missing and response.status == 200:  # A refused request has recorded nothing.
            return problem(404, "there is no such arrival, and none is taken any more")
        return response

    async def book_transfer(self, call: Call[ChangeQuery, ArrivingTransfer]) -> web.Response:
        """Book credits from another residency."""
        id_ = self._get_move(call.path("move"))
        if bool(call.body.grants) == bool(call.body.overdraft):
            raise reject_field("grants", "is beside an overdraft, or there is neither")
        transfer = cast(Transfer, call.body.model_dump(mode="json"))

        async def make(connection: AsyncConnection) -> ChangeResult:
            row = await credit_transfers.book_arriving(connection, call.caller, id_, transfer, self._settings)
            return ChangeResult(200, moves.to_response(row))

        return await self._change(call, make)

    def _get_move(self, written: str) -> str:
        """Return the id of a move. Raises ChangeRejectedError."""
        departure.get_residency(self._settings)
        if not is_id(written):
            raise reject_field("move", "is no id")
        return written
