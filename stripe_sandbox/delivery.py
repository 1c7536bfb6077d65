"""Webhooks: signed deliveries of events, at least once, in any order, with retries."""

import asyncio
import hashlib
import hmac
import sqlite3
from collections.abc import Callable

import aiohttp
import orjson

from stripe_sandbox.faults import DELIVERIES, Faults
from stripe_sandbox.transaction import Account, Body, Transaction

TIMEOUT = aiohttp.ClientTimeout(total=10.0)
"""The time for a delivery. The body of the answer is not read."""
AT_ONCE = 32
SHUFFLE_SECONDS = 2.0
BACK_OFF = (5, 30, 120, 600, 3600)
"""Seconds until the next attempt; the last value repeats for three days."""
GIVES_UP_SECONDS = 3 * 86400


def enqueue(faults: Faults, tx: Transaction, event: Body, endpoint: str, form: str) -> None:
    """Enqueue the delivery of an event, with the faults of the plan."""
    delays, forged = [0.0], False
    for fault in faults.match_faults(DELIVERIES, event["type"]):
        match fault.kind:
            case "webhook_lost":
                delays = []
            case "webhook_duplicated":
                delays = delays * 2
            case "webhook_late":
                delays = [delay + fault.seconds for delay in delays]
            case "webhook_shuffled":
                most = fault.seconds or SHUFFLE_SECONDS
                delays = [delay + most * faults.draw(event["id"], n) for n, delay in enumerate(delays)]
            case "webhook_forged":
                forged = True
    for delay in delays:
        tx.account.connection.execute(
            "INSERT INTO deliveries (event, endpoint, live, due, state, forged) VALUES (?, ?, ?, ?, 'waiting', ?)",
            (event["id"], endpoint, tx.live, tx.account.clock() + delay, forged),
        )


def compute_signature(secret: str, payload: bytes, at: int) -> str:
    """Compute the field `Stripe-Signature` of a payload."""
    digest = hmac.new(secret.encode(), f"{at}.".encode() + payload, hashlib.sha256).hexdigest()
    return f"t={at},v1={digest}"


class Deliveries:
    """The deliveries that are due."""

    def __init__(self, account: Account, clock: Callable[[], float]) -> None:
        self._account = account
        self._clock = clock
        self._session: aiohttp.ClientSession | None = None

    async def attempt_due(self, *, all: bool = False) -> int:
        """Attempt the deliveries that are due, or all pending ones; returns their number."""
        rows = self._account.connection.execute(
            "SELECT seq, event, endpoint, live, attempt, forged FROM deliveries WHERE state = 'waiting' AND due <= ? "
            "ORDER BY due, seq LIMIT ?",
            (float("inf") if all else self._clock(), AT_ONCE),
        ).fetchall()
        if rows:
            await asyncio.gather(*(self._deliver(*row) for row in rows))
        return len(rows)

    async def _deliver(self, seq: int, event: str, endpoint: str, live: int, attempt: int, forged: int) -> None:
        tx = Transaction(self._account, bool(live), int(self._clock()))
        endpoint_body, event_body = tx.find_any(endpoint), tx.find_any(event)
        if endpoint_body is None or event_body is None or endpoint_body.get("deleted"):
            self._settle(seq, "dropped", attempt)
            return
        thin = event_body["object"] == "v2.core.event"
        payload = (
            orjson.dumps(build_notification(event_body))
            if thin
            else orjson.dumps(tx.render(event_body), option=orjson.OPT_INDENT_2)
        )
        details = endpoint_body.get("webhook_endpoint") or {
            "url": endpoint_body.get("url"),
            "signing_secret": endpoint_body.get("secret"),
        }
        secret = "whsec_of_somebody_else" if forged else details["signing_secret"]
        headers = {
            "Content-Type": "application/json; charset=utf-8",
            "User-Agent": "Stripe/1.0 (+https://stripe.com/docs/webhooks)",
            "Stripe-Signature": compute_signature(secret, payload, int(self._clock())),
        }
        delivered = await self._post(details["url"], payload, headers)
        if delivered:
            self._settle(seq, "delivered", attempt + 1)
            return
        wait = BACK_OFF[min(attempt, len(BACK_OFF) - 1)]
        if sum(BACK_OFF) + max(0, attempt - len(BACK_OFF)) * BACK_OFF[-1] > GIVES_UP_SECONDS:
            self._settle(seq, "given up", attempt + 1)
            return
        self._account.connection.execute(
            "UPDATE deliveries SET attempt = ?, due = ?, forged = 0 WHERE seq = ?",
            (attempt + 1, self._clock() + wait, seq),
        )

    async def _post(self, url: str, payload: bytes, headers: dict[str, str]) -> bool:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=TIMEOUT, cookie_jar=aiohttp.DummyCookieJar())
        try:
            async with self._session.post(url, data=payload, headers=headers, allow_redirects=False) as answer:
                return 200 <= answer.status < 300
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
            return False

    def _settle(self, seq: int, state: str, attempt: int) -> None:
        self._account.connection.execute(
            "UPDATE deliveries SET state = ?, attempt = ? WHERE seq = ?", (state, attempt, seq)
        )

    async def close(self) -> None:
        """Stop delivering."""
        if self._session is not None:
            await self._session.close()


def build_notification(event: Body) -> Body:
    """Build the thin notification of an event."""
    names = ("id", "object", "type", "livemode", "created", "related_object")
    return {name: event[name] for name in names if name in event} | {"context": None, "reason": None}


def count_pending(connection: sqlite3.Connection, event: str) -> int:
    """Count the pending deliveries of an event."""
    (many,) = connection.execute(
        "SELECT COUNT(*) FROM deliveries WHERE event = ? AND state = 'waiting'", (event,)
    ).fetchone()
    return int(many)


def list_states(connection: sqlite3.Connection, after: int, limit: int) -> list[Body]:
    """List the deliveries with their states, oldest first."""
    rows = connection.execute(
        "SELECT seq, event, endpoint, due, attempt, state FROM deliveries WHERE seq > ? ORDER BY seq LIMIT ?",
        (after, limit),
    )
    return [dict(zip(("seq", "event", "endpoint", "due", "attempt", "state"), row, strict=True)) for row in rows]
