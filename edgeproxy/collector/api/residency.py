"""Sums of residencies, and moves of customers between them."""

import asyncio
import time
from typing import Annotated, cast

import sqlalchemy as sa
from pydantic import ConfigDict, Field
from sqlalchemy.ext.asyncio import AsyncConnection
from typing_extensions import TypedDict

from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.accounts import audit, customers
from edgeproxy.collector.accounts.audit import AuditEntry
from edgeproxy.collector.accounts.change import reject_field
from edgeproxy.collector.accounts.ids import is_id, now_ms
from edgeproxy.collector.accounts.models import Body
from edgeproxy.collector.api.changes import ChangeHandlers
from edgeproxy.collector.api.endpoint import (
    ADMIN,
    AGGREGATES,
    BILLING,
    UPDATE,
    Call,
    Nothing,
    Query,
    delete,
    get,
    post,
    put,
)
from edgeproxy.collector.api.field_types import Boolean, ChangeQuery, PageLimit, Truth, exact
from edgeproxy.collector.api.group import Group, PathParameter
from edgeproxy.collector.api.request_limits import RequestRate
from edgeproxy.collector.api.responses import ProblemError, Result
from edgeproxy.collector.database.schema import edges
from edgeproxy.collector.problems import operation_codes
from edgeproxy.collector.residency import aggregates, arrival, credit_transfers, departure, moves
from edgeproxy.collector.residency.aggregates import Aggregates
from edgeproxy.collector.residency.credit_transfers import Transfer
from edgeproxy.collector.residency.departure import Departure, MoveProgress, Step
from edgeproxy.collector.residency.documents import build_document, parse_document
from edgeproxy.collector.residency.moves import Move, MoveList
from edgeproxy.collector.residency.peers import FRESH_SECONDS, PeerReader, ResidencyList, ResidencyStatus
from edgeproxy.config.collector.currency_units import Currency
from edgeproxy.config.collector.settings import CollectorSettings
from edgeproxy.config.field_types import ResidencyName

MILLICREDITS_MAX = (1 << 53) - 1
NUMBER_MAX = 1_000_000
GRANTS_MAX = 1000
Millicredits = Annotated[int, exact(int, "a whole number", 0, MILLICREDITS_MAX), Field(ge=0, le=MILLICREDITS_MAX)]
Id = Annotated[str, Field(pattern="^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$")]


class DepartureQuery(Query):
    """The residency that the customer would move to."""

    residency: ResidencyName
    """The other residency."""
    end_plan: Truth = False
    """True if the move may end the customer's plan within its paid period when it completes."""


class MovesQuery(Query):
    """The page."""

    limit: PageLimit = 100
    """The number of moves, at most."""


class BeginMoveRequest(Body):
    """The destination of a customer's move."""

    to: ResidencyName
    """The other residency."""
    end_plan: Boolean = False
    """True if the move may end the customer's plan within its paid period when it completes. No part of the fee is paid
    back.
    """


class MoveStepRequest(Body):
    """The next step of a move."""

    step: Step
    """`created`: the customer exists there, without keys. `promise` the remaining credits. `go`: edges switch over.
    `book` the promised credits. `leave`: the deletion here starts. `withdraw` the move, while nothing has switched
    over.
    """
    peer: Id | None = None
    """The id of the customer at the other residency, for the step `created`."""


class MoveDocument(TypedDict):
    """The data that moves with a customer."""

    document: dict[str, object]
    """The body for `PUT /v1/arrivals/{move}` at the other residency. It contains personal data, and hashes of keys."""


class ArrivalRequest(Body):
    """A customer from another residency."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    residency: ResidencyName = Field(alias="from")
    """The residency that the customer leaves."""
    document: dict[str, object]
    """The answer of `GET /v1/customers/{customer}/move/document` there, possibly without some of the keys."""
    is_last: Boolean
    """True if all keys have been sent. The arrival is then complete, and from then on the customer is changed here
    only.
    """


class ArrivingGrant(Body):
    """Credits that were added at once."""

    millicredits: Millicredits
    """The amount."""
    expires: Millicredits | None
    """The time in Unix milliseconds when the unspent rest expires; null: never."""


class ArrivingTransfer(Body):
    """Credits, or an overdraft, from another residency."""

    number: Annotated[int, exact(int, "a whole number", 1, NUMBER_MAX), Field(ge=1, le=NUMBER_MAX)]
    """The number of the transfer within its move."""
    currency: Currency
    """The currency of the credits."""
    grants: Annotated[tuple[ArrivingGrant, ...], Field(max_length=GRANTS_MAX)]
    """The credits; an empty list for an overdraft."""
    overdraft: Millicredits
    """The millicredits that the customer owes; 0 for credits."""


class ResidencyHandlers(ChangeHandlers):
    """Handlers of sums, and of moves at both residencies."""

    def apply_settings(self, settings: CollectorSettings) -> None:
        """Use the residencies of new settings."""
        super().apply_settings(settings)
        self._peers = PeerReader(settings.residencies)
        self._own: tuple[float, Aggregates] | None = None
        self._own_lock = asyncio.Lock()

    @get("/v1/residencies", roles=BILLING, errors={409: "This collector has no residency."})
    async def list_residencies(self, call: Call[Query, Nothing]) -> ResidencyList:
        """List this residency and those in the file, with the sums of each.

        The collector asks each one at most once a minute.
        """
        residency = departure.get_residency(self._settings)
        async with self._database.reading() as connection:
            regions = await connection.scalars(sa.select(edges.c.region).distinct())
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
        return {"residencies": [here, *others]}

    @get(
        "/v1/residency/aggregates",
        roles=AGGREGATES,
        errors={409: "This collector has no residency."},
        rate=RequestRate(30, "address"),
    )
    async def fetch_aggregates(self, call: Call[Query, Nothing]) -> Result[Aggregates]:
        """Fetch sums of this residency for the console of another one. They identify no customer."""
        _, own = await self._fetch_own(departure.get_residency(self._settings))
        async with self._database.writing() as connection:
            await audit.append_entry(connection, call.caller, AuditEntry("residency.aggregates", own["residency"]))
        return Result(own, headers={"Cache-Control": "no-store"})

    async def _fetch_own(self, residency: str) -> tuple[float, Aggregates]:
        """Return the sums of this residency with their Unix second. They are computed once per FRESH_SECONDS."""
        async with self._own_lock:
            now = time.time()
            if self._own is None or not 0 <= now - self._own[0] < FRESH_SECONDS:
                async with self._database.reading(whole=True) as connection:
                    self._own = now, await aggregates.fetch_aggregates(connection, residency, now)
            return self._own

    @get("/v1/moves")
    async def list_moves(self, call: Call[MovesQuery, Nothing]) -> MoveList:
        """List moves to and from other residencies, newest first."""
        async with self._database.reading() as connection:
            return {
                "residency": self._settings.residency,
                "moves": await moves.list_moves(connection, call.query.limit),
            }

    @get("/v1/customers/{customer}/move", errors={409: "This collector has no residency."})
    async def preview_move(self, call: Call[DepartureQuery, Nothing]) -> Departure:
        """Preview a move of a customer to another residency: the data that moves, the data that stays, and the
        obstacles.
        """
        query = call.query
        async with self._database.reading(whole=True) as connection:
            return await departure.preview(
                connection, call.path("customer"), query.residency, self._settings, end_plan=query.end_plan
            )

    @post(
        "/v1/customers/{customer}/move",
        example={"to": "us"},
        errors={409: "An obstacle keeps the customer from leaving."},
        is_sensitive=True,
    )
    async def begin_move(self, call: Call[ChangeQuery, BeginMoveRequest], connection: AsyncConnection) -> MoveProgress:
        """Start or resume a move of a customer to another residency. Nothing changes for the customer yet."""
        ref, body = call.path("customer"), call.body
        return await departure.begin(connection, call.caller, ref, body.to, self._settings, end_plan=body.end_plan)

    @get("/v1/customers/{customer}/move/document", errors={409: "This collector has no residency."}, is_sensitive=True)
    async def fetch_document(self, call: Call[Query, Nothing]) -> Result[MoveDocument]:
        """Fetch the data that moves with a customer to another residency. The audit log records this."""
        departure.get_residency(self._settings)
        async with self._database.reading(whole=True) as connection:
            row = await customers.get_row(connection, call.path("customer"))
            document = await build_document(connection, row, now_ms())
        async with self._database.writing() as connection:
            await audit.append_entry(connection, call.caller, AuditEntry("customer.move_document", row.name))
        return Result({"document": cast(dict[str, object], document)}, headers={"Cache-Control": "no-store"})

    @post(
        "/v1/customers/{customer}/move/steps",
        example={"step": "go"},
        errors={409: "There is no move, or another step comes first."},
        is_sensitive=True,
    )
    async def take_step(self, call: Call[ChangeQuery, MoveStepRequest], connection: AsyncConnection) -> MoveProgress:
        """Take the next step of a move. Repeating a step changes nothing."""
        ref, body = call.path("customer"), call.body
        return await departure.take_step(connection, call.caller, ref, body.step, body.peer, self._settings)

    @put(
        "/v1/arrivals/{move}",
        example={
            "from": "eu",
            "document": {"format": 1, "peer": "01a0", "name": "acme", "settings": {"tier": "standard"}},
            "is_last": False,
        },
        change=UPDATE,
        is_sensitive=True,
    )
    async def put_arrival(self, call: Call[ChangeQuery, ArrivalRequest]) -> Result[Move]:
        """Accept a customer from another residency. A customer whose arrival is complete is not changed."""
        body, id_ = call.body, self._get_move(call.path("move"))
        document = parse_document(body.document)

        async def make(connection: AsyncConnection) -> Result[Move]:
            return Result(
                await arrival.arrive(
                    connection, call.caller, id_, body.residency, document, self._settings, is_last=body.is_last
                )
            )

        return await self._change(call, make)

    @delete(
        "/v1/arrivals/{move}",
        errors={404: "There is no such arrival.", 409: "The arrival is complete, or credits of the move are booked."},
        is_sensitive=True,
    )
    async def withdraw_arrival(self, call: Call[ChangeQuery, Nothing]) -> Result[Move]:
        """Withdraw an incomplete arrival.

        A customer that the arrival created is erased at once; an earlier customer, who came back, is being deleted
        again. If the customer has not arrived, its arrival is refused for a week.
        """
        id_, is_missing = self._get_move(call.path("move")), False

        async def make(connection: AsyncConnection) -> Result[Move]:
            nonlocal is_missing
            withdrawn = await arrival.withdraw(connection, call.caller, id_)
            is_missing = withdrawn is None
            return Result(cast(Move, withdrawn or {}))

        result = await self._change(call, make)
        if is_missing:
            raise ProblemError(operation_codes.MOVE_NOT_FOUND, "there is no such arrival, and none is taken any more")
        return result

    @post(
        "/v1/arrivals/{move}/transfers",
        example={
            "number": 1,
            "currency": "usd",
            "grants": [{"millicredits": 20_000, "expires": None}],
            "overdraft": 0,
        },
        errors={409: "Such credits cannot be spent here, or the customer is charged in another currency."},
        is_sensitive=True,
    )
    async def book_transfer(self, call: Call[ChangeQuery, ArrivingTransfer]) -> Result[Move]:
        """Book credits, or an overdraft, that move with a customer from another residency.

        Each transfer is booked once.
        """
        id_ = self._get_move(call.path("move"))
        if bool(call.body.grants) == bool(call.body.overdraft):
            raise reject_field("grants", "is beside an overdraft, or there is neither")
        transfer = cast(Transfer, call.body.model_dump(mode="json"))

        async def make(connection: AsyncConnection) -> Result[Move]:
            row = await credit_transfers.book_arriving(connection, call.caller, id_, transfer, self._settings)
            return Result(moves.to_response(row))

        return await self._change(call, make)

    def _get_move(self, written: str) -> str:
        """Return the id of a move. Raises ChangeRejectedError."""
        departure.get_residency(self._settings)
        if not is_id(written):
            raise reject_field("move", "is no id")
        return written


GROUP = Group(
    "residency",
    "Sums of residencies, and moves of customers between them. `edgeproxy residency move` calls the endpoints of "
    "both residencies in order. Each call may be repeated.",
    ResidencyHandlers,
    roles=ADMIN,
    parameters={"move": PathParameter("The id of the move.")},
)
