"""Controls that Stripe does not have, below `/_sandbox/`: time, faults, the journal and deliveries."""

import asyncio
from time import monotonic
from typing import TypeVar

import msgspec
import orjson
from aiohttp import web

from stripe_sandbox.delivery import Deliveries, list_states
from stripe_sandbox.due import DueWork
from stripe_sandbox.faults import FaultPlan
from stripe_sandbox.state import State

T = TypeVar("T")

LIMIT, LIMIT_MAX = 1000, 10_000
DUE_SECONDS = 5.0
"""Seconds that the answer to a jump of the clock waits for due work. The sandbox does the rest after it."""


class ClockAdvance(msgspec.Struct, forbid_unknown_fields=True):
    """A request to advance the clock: by some seconds, or until a time."""

    advance: float | None = None
    now: float | None = None


class Controls:
    """Handlers of the controls."""

    def __init__(self, state: State, deliveries: Deliveries, due: DueWork) -> None:
        self._state = state
        self._deliveries = deliveries
        self._due = due

    def add_routes(self, application: web.Application) -> None:
        """Add the routes to an application."""
        router = application.router
        router.add_get("/_sandbox/ready", self.get_ready)
        router.add_get("/_sandbox/clock", self.get_clock)
        router.add_post("/_sandbox/clock", self.advance_clock)
        router.add_get("/_sandbox/faults", self.get_faults)
        router.add_post("/_sandbox/faults", self.set_faults)
        router.add_get("/_sandbox/journal", self.list_effects)
        router.add_get("/_sandbox/deliveries", self.list_deliveries)
        router.add_post("/_sandbox/deliveries", self.attempt_deliveries)

    async def get_ready(self, _: web.Request) -> web.Response:
        """Answer that the sandbox serves."""
        return respond_json({"ready": True})

    async def get_clock(self, _: web.Request) -> web.Response:
        """Return the sandbox's time."""
        return respond_json({"now": self._state.clock()})

    async def advance_clock(self, request: web.Request) -> web.Response:
        """Advance the clock. The answer waits up to DUE_SECONDS for the work that is now due.

        The clock goes back only while there are no objects, so that a new sandbox may begin in the past.
        """
        passing = await parse_body(request, ClockAdvance)
        seconds = passing.advance if passing.now is None else passing.now - self._state.clock()
        if seconds is None or (seconds < 0 and self._state.has_objects()):
            raise web.HTTPBadRequest(text="say advance: SECONDS or now: a time that is to come")
        now = self._state.advance(seconds)
        until = monotonic() + DUE_SECONDS
        while self._due.run_due(now) and monotonic() < until:  # noqa: ASYNC110  # It is no wait: others have their turn.
            await asyncio.sleep(0)
        return respond_json({"now": now})

    async def get_faults(self, _: web.Request) -> web.Response:
        """Return the fault plan, and how many calls each fault has met."""
        return respond_json(msgspec.to_builtins(self._state.faults.plan))

    async def set_faults(self, request: web.Request) -> web.Response:
        """Replace the fault plan."""
        plan = await parse_body(request, FaultPlan)
        self._state.apply_fault_plan(plan)
        return respond_json(msgspec.to_builtins(plan))

    async def list_effects(self, request: web.Request) -> web.Response:
        """Return the recorded effects."""
        after, limit = parse_window(request)
        entries = self._state.list_effects(after, limit, request.query.get("what", ""))
        return respond_json({"entries": entries, "last": entries[-1]["seq"] if entries else after})

    async def list_deliveries(self, request: web.Request) -> web.Response:
        """Return the deliveries of events and their states."""
        after, limit = parse_window(request)
        return respond_json({"deliveries": list_states(self._state.connection, after, limit)})

    async def attempt_deliveries(self, _: web.Request) -> web.Response:
        """Attempt all pending deliveries now, whenever they are due."""
        return respond_json({"tried": await self._deliveries.attempt_due(all=True)})


def parse_window(request: web.Request) -> tuple[int, int]:
    """Parse the cursor and the limit of a query."""
    try:
        after, limit = (int(request.query.get(name, default)) for name, default in (("after", 0), ("limit", LIMIT)))
    except ValueError:
        raise web.HTTPBadRequest(text="after and limit are whole numbers") from None
    return after, max(1, min(limit, LIMIT_MAX))


async def parse_body(request: web.Request, kind: type[T]) -> T:
    """Parse a JSON body; raises a refusal, also of another content type, which a form of any page can have."""
    if request.content_type != "application/json":
        raise web.HTTPUnsupportedMediaType(text="send the content type application/json")
    try:
        return msgspec.json.decode(await request.read(), type=kind)
    except msgspec.DecodeError as error:
        raise web.HTTPBadRequest(text=str(error)) from None


def respond_json(body: object) -> web.Response:
    """Create a response with JSON."""
    return web.Response(body=orjson.dumps(body), content_type="application/json")
