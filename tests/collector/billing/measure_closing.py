"""Measure closing a month at Stripe's rates: `python -m tests.collector.billing.measure_closing [sqlite] [postgresql]`.

Customers of Standard have used more than the included amount of each meter, and have drafts. Then the sandbox refuses
calls above the rates of a live account, and the product calls at its own pace. The measured values are the seconds from
the freeze until all invoices are sent with the second rater's amounts, and the CPU time of this process. The run ends
after 20 minutes at most. With `--encryption` the columns are encrypted.
"""

import argparse
import asyncio
import os
import random
import tempfile
import time
from calendar import timegm
from collections import Counter
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, ClassVar

import sqlalchemy as sa
import yaml

from edgeproxy.collector.billing.invoices import invoices
from edgeproxy.collector.billing.jobs.period_close import LOOK_SECONDS
from edgeproxy.collector.billing.stripe.client import Stripe, StripeCallError
from edgeproxy.collector.database.billing_tables import invoices as table
from edgeproxy.collector.encryption.keyring import open_keyring
from edgeproxy.config.collector.encryption import Encryption
from loadtest.testbed.postgresql import Postgresql
from loadtest.testbed.process import ROOT
from tests.collector.encryption.test_rows import make_key
from tests.support.second_rater import fee, usage_charges
from tests.support.sold import LIVE_KEY, Sold, sold
from tests.support.stripe_sandbox import Sandbox

PLAN = yaml.safe_load((ROOT / "loadtest/testbed/plans.yaml").read_text())["plans"]["standard@1"]
JANUARY, FEBRUARY = timegm((2027, 1, 1, 0, 0, 0)), timegm((2027, 2, 1, 0, 0, 0))
FREEZE = FEBRUARY + 2 * 86400
DEADLINE_SECONDS = 1200.0
FEE = fee(PLAN, seconds=1, of=1)


class Counted(Stripe):
    """A client that counts its calls, and which of them failed."""

    calls: ClassVar[Counter[str]] = Counter()
    failures: ClassVar[Counter[str]] = Counter()

    async def call(self, name: str, /, *ids: str, key: str | None = None, **params: Any) -> dict[str, Any]:
        """Make the call."""
        self.calls[name] += 1
        try:
            return await super().call(name, *ids, key=key, **params)
        except StripeCallError as error:
            self.failures[str(error.reason or error.outcome.value)] += 1
            raise


def used(chance: random.Random) -> dict[str, int]:
    """Return a usage above the included amount of each meter."""
    return {
        meter: int(meter_plan["included"]) * chance.randint(11, 30) // 10
        for meter, meter_plan in PLAN["meters"].items()
    }


async def drafted(
    folder: Path, url: str, stripe: str, usage: dict[str, dict[str, int]], encryption: Encryption | None
) -> None:
    """Create customers with a month of usage. Their first fee is sent, and a draft for their usage exists."""
    async with sold(folder, url, stripe, live=True) as (shop, closes):
        await open_keyring(shop.database, encryption)
        for name, quantities in usage.items():
            await shop.customer(name, "standard", now=JANUARY)
            await shop.use(name, quantities, at=JANUARY + 3600)
        for now in (JANUARY, FEBRUARY + 3600):
            while await closes.step(now):
                pass
        states = await counted(shop)
        assert states == {invoices.OPEN: len(usage), invoices.DRAFT: len(usage)}, states


async def counted(shop: Sold) -> dict[str, int]:
    """Return the number of invoices in each state."""
    async with shop.database.reading() as connection:
        rows = await connection.execute(sa.select(table.c.state, sa.func.count()).group_by(table.c.state))
        return {row[0]: row[1] for row in rows}


async def closed(
    folder: Path, url: str, stripe: str, customers: int, encryption: Encryption | None
) -> tuple[float, float]:
    """Close all invoices with the polling of a collector. Return the elapsed seconds and the CPU seconds."""
    async with sold(folder, url, stripe, Counted, live=True) as (shop, closes):
        await open_keyring(shop.database, encryption)
        began, worked = time.monotonic(), time.process_time()
        while (await counted(shop)).get(invoices.OPEN) != 2 * customers:
            await closes.step(FREEZE + time.monotonic() - began)
            await asyncio.sleep(LOOK_SECONDS)
        return time.monotonic() - began, time.process_time() - worked


async def totals(client: Any) -> dict[str, Counter[int]]:
    """Return the totals of each customer's invoices at Stripe. All invoices must be open."""
    totals_by_customer: dict[str, Counter[int]] = {}
    names = {
        one.id: one.name async for one in (await client.v1.customers.list_async({"limit": 100})).auto_paging_iter()
    }
    async for one in (await client.v1.invoices.list_async({"limit": 100})).auto_paging_iter():
        assert one.status == "open", one.status
        totals_by_customer.setdefault(names[one.customer], Counter())[one.total] += 1
    return totals_by_customer


async def measured(
    folder: Path, url: str, usage: dict[str, dict[str, int]], encryption: Encryption | None
) -> tuple[float, float]:
    """Close a month at a sandbox with the rates of a live account. Return the elapsed and the CPU seconds."""
    key = LIVE_KEY["STRIPE_SECRET_KEY"]
    async with asyncio.timeout(DEADLINE_SECONDS):
        with closing(Sandbox(folder / "sandbox")) as sandbox:
            await drafted(folder, url, (await asyncio.to_thread(sandbox.start)).url, usage, encryption)
        with closing(Sandbox(folder / "sandbox", "--rates", "live")) as sandbox:
            took = await closed(folder, url, (await asyncio.to_thread(sandbox.start)).url, len(usage), encryption)
        with closing(Sandbox(folder / "sandbox")) as sandbox:
            await asyncio.to_thread(sandbox.start)
            invoice_totals = await asyncio.to_thread(sandbox.run, totals, key)
    for name, quantities in usage.items():
        charges = usage_charges(PLAN, {meter: {"": quantity} for meter, quantity in quantities.items()})
        assert invoice_totals[name] == Counter([FEE, FEE + sum(cents for _, cents in charges.values())]), name
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description="Seconds to close a month at Stripe's rates.")
    parser.add_argument("kinds", nargs="*", default=["sqlite", "postgresql"])
    parser.add_argument("--customers", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--encryption", action="store_true", help="encrypt the columns of personal data and the books")
    options = parser.parse_args()
    for kind in options.kinds:
        chance = random.Random(options.seed)
        usage = {f"payer-{number}": used(chance) for number in range(options.customers)}
        Counted.calls.clear()
        Counted.failures.clear()
        with ExitStack() as ends:
            folder = Path(ends.enter_context(tempfile.TemporaryDirectory()))
            url = f"sqlite:///{folder}/ledger.db"
            if kind == "postgresql":
                url = ends.enter_context(closing(Postgresql(durable=True))).database()
            encryption = make_key(folder / "master.key") if options.encryption else None
            took, worked = asyncio.run(measured(folder, url, usage, encryption))
        calls = Counted.calls.total()
        most = ", ".join(f"{name.removeprefix('v1.')} {number:,}" for name, number in Counted.calls.most_common())
        print(
            f"{kind}{', encrypted' if encryption else ''}: {options.customers:,} invoices closed in {took:.0f} s, "
            f"{worked:.1f} of processors, {calls:,} calls ({calls / took:.0f}/s): {most}; "
            f"failed: {dict(Counted.failures) or 'none'}; load {os.getloadavg()[0]:.0f}; seed {options.seed}",
            flush=True,
        )


if __name__ == "__main__":
    main()
