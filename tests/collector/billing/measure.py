"""From Stripe's event to its effect in a storm: `python -m tests.collector.billing.measure [sqlite] [postgresql]`.

Sessions of Checkout are paid at a sandbox, and their events sent to a collector all at once: shuffled, some twice, some
with a wrong signature. The collector fetches each object at the rates of a live account. An event's time is counted
from when it is first sent. In the end each purchase is booked once.
"""

import argparse
import asyncio
import functools
import random
import statistics
import tempfile
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import sqlalchemy as sa
import stripe

from edgeproxy.collector.database.credit_tables import credit_transactions
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.delivery_tables import webhook_events
from loadtest.testbed.collector import Collector, checked
from loadtest.testbed.postgresql import Postgresql
from loadtest.testbed.process import ROOT
from tests.support.stripe_sandbox import Sandbox

KEY, SECRET, FORGED = "sk_live_sandbox", "whsec_storm", "whsec_of_somebody_else"
CUSTOMERS, CENTS = 20, 500
SENDERS = 32
DEADLINE_SECONDS = 600.0
TYPES = {
    "checkout.session": ("checkout.session.completed", "checkout.session.async_payment_succeeded"),
    "charge": ("charge.succeeded", "charge.updated"),
}


async def pay(url: str, customers: list[str], sessions: int, client: stripe.StripeClient) -> list[tuple[str, str]]:
    """Have sessions paid; the type and the id of each object that came of it."""
    at_once = asyncio.Semaphore(SENDERS)

    async def one(http: aiohttp.ClientSession, number: int) -> str:
        metadata = {"edgeproxy_credits": customers[number % len(customers)]}
        price = {"currency": "usd", "unit_amount": CENTS, "product_data": {"name": "Credits"}}
        params: Any = {
            "mode": "payment",
            "success_url": "https://example.com/",
            "line_items": [{"quantity": 1, "price_data": price}],
            "metadata": metadata,
            "payment_intent_data": {"metadata": metadata},
        }
        async with at_once:
            created = await client.v1.checkout.sessions.create_async(params)
            async with http.post(f"{url}/_sandbox/checkout/{created.id}/pay", json={}) as answer:
                assert answer.status == 200, await answer.text()
        return created.id

    async with aiohttp.ClientSession() as http:
        objects = [("checkout.session", id) for id in await asyncio.gather(*(one(http, n) for n in range(sessions)))]
    page = await client.v1.charges.list_async({"limit": 100})
    return objects + [("charge", charge.id) async for charge in page.auto_paging_iter()]


def storm(objects: list[tuple[str, str]], events: int, now: int, chance: random.Random) -> list[tuple[bytes, str]]:
    """Return events with their secrets in random order. A tenth repeats, and a hundredth has forged copies."""
    sent = []
    for number in range(events):
        kind, id = objects[number % len(objects)]
        event = {
            "id": f"evt_storm{number}",
            "object": "event",
            "type": chance.choice(TYPES[kind]),
            "created": now,
            "livemode": True,
            "data": {"object": {"id": id, "object": kind}},
        }
        sent += [(event, SECRET)] * (1 + (chance.random() < 0.1))
        if chance.random() < 0.01:
            sent.append((event | {"id": f"evt_forged{number}"}, FORGED))
    chance.shuffle(sent)
    return [(orjson.dumps(event), secret) for event, secret in sent]


async def send(port: int, deliveries: list[tuple[bytes, str]]) -> tuple[list[float], dict[str, float]]:
    """Send all of it; the seconds until each was answered, unless it was forged, and when each was first sent."""
    url, took, left = f"http://127.0.0.1:{port}/billing/webhooks/stripe", [], iter(deliveries)
    sent: dict[str, float] = {}
    async with aiohttp.ClientSession() as http:

        async def sender() -> None:
            for body, secret in left:
                signature = stripe.WebhookSignature.generate_signature_header(body.decode(), secret)
                began = time.monotonic()
                sent.setdefault(orjson.loads(body)["id"], time.time())
                async with http.post(url, data=body, headers={"Stripe-Signature": signature}) as answer:
                    assert answer.status == (400 if b"evt_forged" in body else 200), await answer.text()
                if answer.status == 200:
                    took.append(time.monotonic() - began)

        await asyncio.gather(*(sender() for _ in range(SENDERS)))
    return took, sent


async def effects(url: str, events: int, sent: dict[str, float], sessions: int) -> list[float]:
    """Wait until all is applied and booked once; the seconds until each event's effect."""
    database = await Database.connect(url)
    try:
        columns, kinds = webhook_events.c, credit_transactions.c.kind
        while True:
            async with database.reading() as connection:
                rows = (await connection.execute(sa.select(columns.id, columns.state, columns.applied))).all()
            if len(rows) == events and {row.state for row in rows} == {"applied"}:
                break
            assert time.time() < max(sent.values()) + DEADLINE_SECONDS, "the storm is not over"
            await asyncio.sleep(1.0)
        async with database.reading() as connection:
            booked = sa.select(kinds, sa.func.count()).group_by(kinds)
            effect_by_object = {row[0]: row[1] for row in await connection.execute(booked)}
        assert effect_by_object == {"purchase": sessions}, effect_by_object
        return [row.applied / 1000 - sent[row.id] for row in rows]
    finally:
        await database.close()


def main() -> None:
    parser = argparse.ArgumentParser(description="Seconds from Stripe's event to its effect, in a storm.")
    parser.add_argument("kinds", nargs="*", default=["sqlite", "postgresql"])
    parser.add_argument("--events", type=int, default=10_000)
    parser.add_argument("--sessions", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    for kind in options.kinds:
        with ExitStack() as ends:
            folder = Path(ends.enter_context(tempfile.TemporaryDirectory()))
            url = f"sqlite:///{folder}/ledger.db"
            if kind == "postgresql":
                url = ends.enter_context(closing(Postgresql(durable=True))).database()
            sandbox = ends.enter_context(closing(Sandbox(folder / "sandbox"))).start()
            for name, content in (("key", KEY), ("secrets", SECRET)):
                (folder / name).write_text(content)
            way = {"base": sandbox.url, "key": str(folder / "key"), "webhook_secrets": str(folder / "secrets")}
            billing = {"plans": str(ROOT / "loadtest/testbed/plans.yaml"), "mode": "live", "credits": {}}
            made = Collector(folder / "collector", url, billing={**billing, "stripe": {**way, "live": True}})
            collector = ends.enter_context(closing(made)).start()
            customers = [
                collector.send("POST", "/v1/customers", {"name": f"c{n}", "tier": "basic"}).json()["id"]
                for n in range(CUSTOMERS)
            ]
            objects = sandbox.run(functools.partial(pay, sandbox.url, customers, options.sessions), KEY)
            assert len(objects) == 2 * options.sessions, len(objects)
            chance, now = random.Random(options.seed), int(time.time())
            deliveries = storm(objects, options.events, now, chance)
            before, began = collector.cpu(), time.time()
            took, first = asyncio.run(send(collector.port, deliveries))
            sent = time.time() - began
            seconds = sorted(asyncio.run(effects(url, options.events, first, options.sessions)))
            code, output = checked(collector)
            assert code == 0, output
            print(
                f"{kind}: {options.events:,} events about {len(objects):,} objects, {len(deliveries):,} deliveries in "
                f"{sent:.1f} s, answered within {1000 * statistics.median(took):.0f} ms (median), "
                f"{1000 * sorted(took)[int(0.99 * len(took))]:.0f} ms (p99); effect after "
                f"{statistics.median(seconds):.1f} s (median), {seconds[int(0.95 * len(seconds))]:.1f} s (p95), "
                f"{seconds[-1]:.1f} s (last); CPU {collector.cpu() - before:.1f} s; seed {options.seed}",
                flush=True,
            )


if __name__ == "__main__":
    main()
