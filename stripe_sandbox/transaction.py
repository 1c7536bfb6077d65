"""A transaction: the reads and changes of a call or a timer, committed whole or not at all."""

import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from stripe_sandbox.description import Description
from stripe_sandbox.json_values import JsonValue
from stripe_sandbox.refusal import no_such_object, too_many_requests
from stripe_sandbox.shapes import Shapes

Fields = Mapping[str, Any]
"""Read-only fields of a Stripe object or parameters. The description, not this type, defines their values."""
Body = dict[str, Any]
"""A Stripe object with the fields set so far. Names that begin with an underscore are the sandbox's own."""

SqlValue = str | int | float | None

FACTS = (
    "amount",
    "amount_due",
    "amount_paid",
    "currency",
    "customer",
    "invoice",
    "number",
    "status",
    "subtotal",
    "total",
    "fee",
    "net",
)
"""Fields of an object in the journal, beside its id."""

Deliver = Callable[["Transaction", Body, str, str], None]


@dataclass(frozen=True)
class Request:
    """The call of a transaction."""

    id: str
    key: str | None = None
    path: str = ""


@dataclass
class Account:
    """State shared by transactions."""

    connection: sqlite3.Connection
    description: Description
    base: str
    """The URL of the sandbox, for links in its responses."""
    views: Mapping[str, Callable[["Transaction", Body], Body]]
    """Views of objects, by their type."""
    deliver: Deliver
    """Delivers an event: transaction, event, endpoint's id, payload's form."""
    clock: Callable[[], float] = time.time
    """The sandbox's clock."""
    usage_lag: float = 0.0
    """Seconds until a meter event is counted."""
    summary_lag: float = 0.0
    """Seconds from then until summaries include it."""
    limited: bool = False
    """Stripe's rate limits apply."""
    requires_email: bool = True
    """A customer needs an e-mail address for sent invoices."""
    search_lag: float = 0.0
    """Seconds until a search returns a new object."""
    summary_error: Callable[[], int] = lambda: 0
    """Returns the error of a summary."""
    shapes: Shapes = field(init=False)

    def __post_init__(self) -> None:
        self.shapes = Shapes(self.description)


class Transaction:
    """The transaction of a handler. `now` is the sandbox's clock, in seconds since 1970."""

    def __init__(self, account: Account, live: bool, now: int, request: Request | None = None) -> None:
        self.account = account
        self.live = live
        self.now = now
        self.request = request
        self._clocks: dict[str, int] = {}

    # ---- objects

    def find(self, kind: str, id: str) -> Body | None:
        """Find the object of this type and id; None if it does not exist or was deleted."""
        row = self._fetch_row(
            "SELECT body FROM objects WHERE id = ? AND kind = ? AND live = ? AND NOT deleted", id, kind
        )
        return None if row is None else json.loads(row[0])

    def find_deleted(self, kind: str, id: str) -> bool:
        """Return whether there was an object of this type and id that was deleted."""
        return (
            self._fetch_row("SELECT 1 FROM objects WHERE id = ? AND kind = ? AND live = ? AND deleted", id, kind)
            is not None
        )

    def find_any(self, id: str) -> Body | None:
        """Find the object of this id, of any type."""
        row = self.account.connection.execute(
            "SELECT body FROM objects WHERE id = ? AND live = ? LIMIT 1", (id, self.live)
        ).fetchone()
        return None if row is None else json.loads(row[0])

    def get(self, kind: str, id: str, param: str | None = None) -> Body:
        """Return the object; raises the refusal of an unknown id in the parameter `param`, or the path."""
        body = self.find(kind, id)
        if body is None:
            raise no_such_object(kind.rpartition(".")[2].replace("_", " "), id, param)
        return body

    def insert(self, body: Body) -> Body:
        """Insert a new object. It may have the id of a deleted one."""
        self.account.connection.execute(
            "DELETE FROM objects WHERE id = ? AND kind = ? AND live = ? AND deleted",
            (body["id"], body["object"], self.live),
        )
        self.account.connection.execute(
            "INSERT INTO objects (kind, id, live, body) VALUES (?, ?, ?, ?)",
            (body["object"], body["id"], self.live, json.dumps(body)),
        )
        return body

    def save(self, body: Body) -> Body:
        """Save a changed object."""
        self.account.connection.execute(
            "UPDATE objects SET body = ? WHERE id = ? AND kind = ? AND live = ?",
            (json.dumps(body), body["id"], body["object"], self.live),
        )
        return body

    def delete(self, body: Body) -> Body:
        """Mark an object as deleted; returns the response."""
        gone = {"id": body["id"], "object": body["object"], "deleted": True}
        self.account.connection.execute(
            "UPDATE objects SET body = ?, deleted = 1 WHERE id = ? AND kind = ? AND live = ?",
            (json.dumps(gone), body["id"], body["object"], self.live),
        )
        return gone

    def drop(self, body: Body) -> None:
        """Remove an object without a trace."""
        self.account.connection.execute(
            "DELETE FROM objects WHERE id = ? AND kind = ? AND live = ?", (body["id"], body["object"], self.live)
        )

    def all(self, kind: str, **fields: SqlValue) -> list[Body]:
        """Return the objects of a type with these fields, oldest first."""
        conditions = "".join(f" AND json_extract(body, '$.{name}') = ?" for name in fields)
        rows = self.account.connection.execute(
            f"SELECT body FROM objects WHERE kind = ? AND live = ? AND NOT deleted{conditions} ORDER BY seq",
            (kind, self.live, *fields.values()),
        )
        return [json.loads(body) for (body,) in rows]

    def _fetch_row(self, query: str, id: str, kind: str) -> tuple[str, ...] | None:
        row: tuple[str, ...] | None = self.account.connection.execute(query, (id, kind, self.live)).fetchone()
        return row

    def render(self, body: Body) -> Body:
        """Return an object as the API returns it, without expansion."""
        view = self.account.views.get(body["object"])
        return self.account.shapes.complete(body if view is None or body.get("deleted") else view(self, body))

    def parse(self, body: str) -> Body:
        """Parse a stored object."""
        parsed: Body = json.loads(body)
        return parsed

    # ---- time

    def get_time(self, clock: str | None) -> int:
        """Return the time of this test clock, or of the sandbox."""
        if clock is None:
            return self.now
        if clock not in self._clocks:
            self._clocks[clock] = self.get("test_helpers.test_clock", clock)["frozen_time"]
        return self._clocks[clock]

    def set_timer(self, at: int, what: str, id: str, clock: str | None = None) -> None:
        """Set a timer: at `at`, the action `what` runs for this object."""
        self.account.connection.execute(
            "INSERT INTO timers (clock, at, what, id, live) VALUES (?, ?, ?, ?, ?)",
            (clock or "", at, what, id, self.live),
        )

    def cancel_timer(self, what: str, id: str) -> None:
        """Cancel a timer."""
        self.account.connection.execute("DELETE FROM timers WHERE what = ? AND id = ?", (what, id))

    # ---- record

    def check_rate(self, what: str, id: str, many: int, seconds: int) -> None:
        """Raise the refusal of an effect that an object has had too often, if rate limits apply."""
        if not self.account.limited or self.request is None:
            return
        (had,) = self.account.connection.execute(
            "SELECT COUNT(*) FROM journal WHERE id = ? AND what = ? AND at > ?", (id, what, self.now - seconds)
        ).fetchone()
        if had >= many:
            raise too_many_requests("resource-specific")

    def record_effect(self, what: str, id: str, **details: JsonValue) -> None:
        """Record an effect in the journal."""
        self.account.connection.execute(
            "INSERT INTO journal (at, live, what, id, request, details) VALUES (?, ?, ?, ?, ?, ?)",
            (self.now, self.live, what, id, self.request and self.request.id, json.dumps(details)),
        )

    def record_event(self, what: str, body: Body, previous: Fields | None = None, *, on_record: bool = True) -> None:
        """Record an effect, and insert and deliver its event."""
        if on_record:
            facts = {name: body[name] for name in FACTS if body.get(name) is not None}
            self.record_effect(what, body["id"], **facts)
        data: Body = {"object": body if body.get("deleted") else self.render(body)}
        if previous is not None:
            data["previous_attributes"] = dict(previous)
        clock = body.get("test_clock")
        event: Body = {
            "id": generate_id("evt"),
            "object": "event",
            "api_version": self.account.description.version,
            "created": self.get_time(clock if isinstance(clock, str) else None),
            "data": data,
            "livemode": self.live,
            "request": self.request and {"id": self.request.id, "idempotency_key": self.request.key},
            "type": what,
        }
        endpoints = list(self._list_listeners(what, "snapshot"))
        event["pending_webhooks"] = len(endpoints)
        self.insert(event)
        for endpoint in endpoints:
            self.account.deliver(self, event, endpoint, "snapshot")

    def record_thin_event(self, what: str, related: Body | None, data: Body) -> None:
        """Insert an event of v2. Its notifications contain only the id."""
        event: Body = {
            "id": generate_id("evt_test" if not self.live else "evt"),
            "object": "v2.core.event",
            "created": format_timestamp(self.now),
            "livemode": self.live,
            "type": what,
            "data": data,
        }
        if related is not None:
            where = f"/v1/billing/meters/{related['id']}"
            event["related_object"] = {"id": related["id"], "type": related["object"], "url": where}
        self.insert(event)
        self.record_effect(what, event["id"], **data["reason"])
        for endpoint in self._list_listeners(what, "thin"):
            self.account.deliver(self, event, endpoint, "thin")

    def _list_listeners(self, what: str, form: str) -> Iterator[str]:
        def wants(events: Sequence[str]) -> bool:
            return "*" in events or what in events

        if form == "snapshot":
            for endpoint in self.all("webhook_endpoint", status="enabled"):
                if wants(endpoint["enabled_events"]):
                    yield endpoint["id"]
        for destination in self.all("v2.core.event_destination", status="enabled", event_payload=form):
            if wants(destination["enabled_events"]) and destination["type"] == "webhook_endpoint":
                yield destination["id"]


def generate_id(prefix: str) -> str:
    """Generate an id."""
    return f"{prefix}_{os.urandom(12).hex()}"


def format_timestamp(seconds: int) -> str:
    """Format a time as v2 writes it."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
