"""Lives with unusual combinations of events, at the Stripe sandbox, in both collection modes.

The combinations are plausible: a lost dispute and a void, a partial credit note between two changes, a change at the
exact end of a period. `test_lives_at_stripe.py` draws random lives.
"""

import asyncio
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import yaml

from edgeproxy.collector.billing.journal.verification import verify_journal
from edgeproxy.collector.jobs import billing as billing_jobs
from tests.collector.billing.test_lives import COUPONS, METERS, MONTHS, PLANS, Life, Step
from tests.collector.billing.test_lives_at_stripe import StripePlayer, live
from tests.support.era import Era, era
from tests.support.invoiced import JANUARY
from tests.support.sold import KEY
from tests.support.stripe_sandbox import Sandbox

OUT_OF_BAND = 1
"""The `calls` of a payment out of band."""
LIVES: dict[str, Life] = {
    "lost-then-void": Life(
        "small@1",
        False,
        "jpy",
        None,
        0.1,
        (
            Step("pay", 0, 0.2, part=0.1),
            Step("lose", 0, 0.3),
            Step("void", 0, 0.35),
            Step("uncollectible", 0, 0.36),
            Step("change", 0, 0.4, "large@1"),
            Step("win", 0, 0.5),
            Step("use", 0, 0.6, calls=399),
            Step("change", 1, 0.3, "small@1"),
            Step("use", 2, 0.2, calls=200),
        ),
    ),
    "partial-up-down": Life(
        "small@1",
        False,
        "kwd",
        "THIRD",
        0.1,
        (
            Step("credit", 0, 0.2, part=0.37),
            Step("change", 0, 0.3, "large@1"),
            Step("change", 0, 0.4, "small@1"),
            Step("credit", 0, 0.5, invoice=0.99, part=0.5),
            Step("change", 0, 0.6, "middle@1"),
            Step("use", 1, 0.2, calls=300),
            Step("uncredit", 1, 0.3),
        ),
    ),
    "month-year-coupon": Life(
        "small@1",
        False,
        "usd",
        "AMOUNT",
        0.1,
        (
            Step("use", 0, 0.3, calls=399),
            Step("change", 0, 0.5, "small@1", "year"),
            Step("late", 0, 0.45, calls=390),
            Step("credit", 1, 0.2, invoice=0.5, part=0.3),
            Step("change", 1, 0.3, "large@1", "year"),
            Step("void", 1, 0.4, invoice=0.99),
            Step("change", 1, 0.5, "small@1", "month"),
        ),
    ),
    "trial-quantity": Life(
        "middle@1",
        False,
        "eur",
        "AMOUNT",
        0.0,
        (
            Step("change", 0, 0.1, "middle@1", quantity=3),
            Step("use", 0, 0.15, calls=399),
            Step("change", 0, 0.2, "middle@1", quantity=1),
            Step("change", 0, 0.25, "small@1", "year", quantity=5),
            Step("change", 0, 0.28, "middle@1", "month", quantity=2),
            Step("use", 0, 0.6, calls=399),
            Step("credit", 0, 0.7, part=0.8, invoice=0.99),
            Step("change", 1, 0.1, "middle@1", quantity=3),
            Step("change", 1, 0.2, "middle@1", quantity=1),
            Step("change", 2, 0.01, "middle@1", quantity=2),
        ),
    ),
    "scheduled-then-oob": Life(
        "large@1",
        False,
        "kwd",
        None,
        0.2,
        (
            Step("change", 0, 0.4, "small@1"),
            Step("pay", 0, 0.5, calls=1, part=1.0),
            Step("change", 0, 0.6, "middle@1"),
            Step("change", 0, 0.7, "large@1", quantity=1),
            Step("change", 0, 0.8, "small@1", quantity=4),
            Step("pay", 1, 0.5, invoice=0.99, calls=1),
            Step("credit", 1, 0.6, invoice=0.0, part=0.6),
            Step("change", 1, 0.7, "large@1"),
        ),
    ),
    "uncollectible-then-paid": Life(
        "large@1",
        False,
        "usd",
        "THIRD",
        0.1,
        (
            Step("uncollectible", 0, 0.3),
            Step("change", 0, 0.4, "large@1", "year"),
            Step("pay", 0, 0.5, invoice=0.0, part=1.0),
            Step("credit", 0, 0.6, invoice=0.0, part=0.5),
            Step("change", 1, 0.2, "small@1"),
            Step("pay", 1, 0.3, invoice=0.99, calls=1),
        ),
    ),
    "end-seconds": Life(
        "small@1",
        False,
        "usd",
        "THIRD",
        0.0,
        (
            Step("change", 1, 0.0, "large@1"),
            Step("use", 1, 0.0, calls=399),
            Step("change", 2, 0.0, "small@1", "year", quantity=9),
            Step("void", 2, 0.0, invoice=0.99),
            Step("end", 2, 0.5),
            Step("return", 2, 0.5, "middle@1"),
        ),
    ),
    "late-minimum": Life(
        "middle@1",
        False,
        "jpy",
        None,
        0.0,
        (
            Step("use", 0, 0.8, calls=300),
            Step("late", 0, 0.85, calls=399),
            Step("late", 0, 0.9, calls=-60),
            Step("void", 1, 0.5, invoice=0.99),
            Step("late", 0, 0.95, calls=399),
            Step("use", 1, 0.6, calls=399),
        ),
    ),
    "late-volume": Life(
        "large@1",
        False,
        "kwd",
        "AMOUNT",
        0.0,
        (
            Step("use", 0, 0.2, calls=299),
            Step("late", 0, 0.8, calls=1),
            Step("late", 0, 0.81, calls=399),
            Step("credit", 1, 0.2, invoice=0.99, part=0.9),
            Step("late", 0, 0.9, calls=-399),
            Step("use", 1, 0.9, calls=399),
            Step("late", 1, 0.95, calls=399),
        ),
    ),
    "dispute-change-pay": Life(
        "small@1",
        True,
        "jpy",
        "AMOUNT",
        0.1,
        (
            Step("pay", 0, 0.2, part=0.1),
            Step("change", 0, 0.3, "large@1", "year"),
            Step("pay", 0, 0.35, invoice=0.99, part=0.1),
            Step("lose", 0, 0.4, invoice=0.0),
            Step("change", 0, 0.5, "small@1", "month", quantity=2),
            Step("pay", 0, 0.55, invoice=0.99, part=1.0),
            Step("lose", 0, 0.6, invoice=0.6),
            Step("change", 1, 0.5, "large@1", "year"),
            Step("win", 1, 0.6, invoice=0.0),
        ),
    ),
    "end-return-coupon": Life(
        "small@1",
        False,
        "eur",
        "THIRD",
        0.1,
        (
            Step("credit", 0, 0.2, part=1.0),
            Step("end", 0, 0.3),
            Step("return", 0, 0.4, "small@1", quantity=3),
            Step("end", 0, 0.5),
            Step("return", 0, 0.6, "large@1", "year"),
            Step("void", 0, 0.7, invoice=0.99),
            Step("end", 1, 0.3),
            Step("return", 1, 0.4, "middle@1"),
        ),
    ),
    "oob-credit-upgrade": Life(
        "small@1",
        False,
        "usd",
        None,
        0.1,
        (
            Step("pay", 0, 0.2, calls=1),
            Step("credit", 0, 0.3, part=0.4),
            Step("change", 0, 0.4, "large@1"),
            Step("uncredit", 0, 0.5),
            Step("change", 0, 0.6, "large@1", "year"),
            Step("credit", 1, 0.1, invoice=0.0, part=1.0),
        ),
    ),
    "uncredit-between": Life(
        "large@1",
        False,
        "eur",
        "AMOUNT",
        0.1,
        (
            Step("credit", 0, 0.2, part=1.0),
            Step("change", 0, 0.3, "large@1", "year"),
            Step("uncredit", 0, 0.4),
            Step("change", 0, 0.5, "small@1"),
            Step("change", 0, 0.6, "large@1", "year"),
            Step("void", 0, 0.7, invoice=0.99),
            Step("change", 0, 0.8, "middle@1"),
            Step("use", 1, 0.2, calls=399),
        ),
    ),
    "void-year-month": Life(
        "small@1",
        True,
        "kwd",
        "THIRD",
        0.2,
        (
            Step("change", 0, 0.3, "small@1", quantity=5),
            Step("void", 0, 0.4, invoice=0.0),
            Step("change", 0, 0.5, "small@1", quantity=9),
            Step("change", 0, 0.6, "small@1", "month", quantity=2),
            Step("use", 0, 0.7, calls=399),
            Step("change", 1, 0.6, "small@1", "year", quantity=9),
        ),
    ),
    "negative-threshold": Life(
        "small@1",
        False,
        "usd",
        "AMOUNT",
        0.0,
        (
            Step("use", 0, 0.2, calls=399),
            Step("use", 0, 0.3, calls=-60),
            Step("use", 0, 0.4, calls=-60),
            Step("credit", 0, 0.5, invoice=0.99, part=1.0),
            Step("use", 0, 0.6, calls=399),
            Step("late", 0, 0.7, calls=-60),
            Step("use", 1, 0.2, calls=-60),
            Step("use", 1, 0.3, calls=30),
        ),
    ),
    "void-proration-again": Life(
        "small@1",
        False,
        "jpy",
        None,
        0.1,
        (
            Step("change", 0, 0.2, "middle@1"),
            Step("void", 0, 0.3, invoice=0.99),
            Step("change", 0, 0.4, "large@1"),
            Step("uncollectible", 0, 0.5, invoice=0.99),
            Step("change", 0, 0.6, "large@1", "year"),
            Step("void", 0, 0.7, invoice=0.99),
            Step("change", 1, 0.2, "small@1", quantity=9),
            Step("use", 1, 0.4, calls=399),
        ),
    ),
    "uncollectible-change-pay": Life(
        "middle@1",
        False,
        "kwd",
        "AMOUNT",
        0.0,
        (
            Step("use", 0, 0.5, calls=399),
            Step("uncollectible", 0, 0.6, invoice=0.99),
            Step("change", 0, 0.7, "large@1"),
            Step("pay", 0, 0.8, invoice=0.0, part=1.0),
            Step("pay", 0, 0.85, invoice=0.99, part=0.1),
            Step("lose", 0, 0.9, invoice=0.99),
            Step("change", 1, 0.2, "middle@1", quantity=3),
        ),
    ),
    "dispute-with-note": Life(
        "large@1",
        False,
        "jpy",
        "THIRD",
        0.1,
        (
            Step("pay", 0, 0.2, part=0.1),
            Step("credit", 0, 0.25, part=0.4),
            Step("lose", 0, 0.3),
            Step("credit", 0, 0.4, part=1.0),
            Step("change", 0, 0.5, "small@1"),
            Step("change", 0, 0.6, "large@1", "year"),
            Step("uncredit", 0, 0.7),
        ),
    ),
    "trial-end-second": Life(
        "middle@1",
        False,
        "usd",
        "AMOUNT",
        0.0,
        (
            Step("change", 0, 10 / 31, "large@1", "year"),
            Step("change", 0, 10 / 31, "middle@1", "month", quantity=3),
            Step("use", 0, 10 / 31, calls=399),
            Step("credit", 0, 0.5, part=0.5),
            Step("change", 1, 0.0, "middle@1", quantity=1),
        ),
    ),
    "note-void-note": Life(
        "small@1",
        False,
        "eur",
        None,
        0.1,
        (
            Step("credit", 0, 0.2, part=0.5),
            Step("uncredit", 0, 0.25),
            Step("credit", 0, 0.3, part=1.0),
            Step("void", 0, 0.4),
            Step("change", 0, 0.5, "large@1"),
            Step("pay", 0, 0.6, invoice=0.99, part=1.0),
            Step("credit", 0, 0.7, invoice=0.99, part=0.3),
            Step("change", 0, 0.8, "middle@1"),
            Step("end", 0, 0.9),
        ),
    ),
}
SHORT = ("note-void-note", "partial-up-down", "end-seconds")
"""The lives of a run that is not long."""


class Neighbour(StripePlayer):
    """A life that is written down, with payments out of band."""

    def __init__(self, of: Era, sandbox: Sandbox, name: str, life: Life) -> None:
        super().__init__(of, sandbox, name, 0)
        self._life, self._begun = life, JANUARY + life.share * (MONTHS[1] - JANUARY)

    async def _settle(self, step: Step) -> None:
        if step.kind != "pay" or step.calls != OUT_OF_BAND:
            return await super()._settle(step)
        rows = [row for row in await self.fetch_rows() if row.id in self._written and row.total > 0 and row.stripe_id]
        if rows:
            row = sorted(rows, key=lambda row: row.id)[int(step.invoice * len(rows))]
            await self.ask("POST", f"/v1/invoices/{row.stripe_id}/pay", "paid_out_of_band=true")
        return None


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("collection", ["invoice_items", "meters"])
@pytest.mark.parametrize(
    "label", [label if label in SHORT else pytest.param(label, marks=pytest.mark.soak) for label in LIVES]
)
def test_unusual_life_agrees_with_stripe(
    new_sandbox: Sandbox,
    tmp_path: Path,
    database: str,
    collection: str,
    label: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("STRIPE_SECRET_KEY", KEY["STRIPE_SECRET_KEY"])
    file = tmp_path / "plans.yaml"
    plans = {version: {**terms, "meters": {"calls": METERS[version]}} for version, terms in PLANS.items()}
    file.write_text(yaml.safe_dump({"plans": plans}))
    terms: dict[str, Any] = {"plans": str(file), "meters": {"calls": {"count": "events"}}, "coupons": COUPONS}
    terms |= {"breaker": {"enabled": False}, "collection": collection}

    async def work() -> None:
        async with era(tmp_path, database, new_sandbox, JANUARY, **terms) as of:
            of.collection = collection
            player = Neighbour(of, new_sandbox, f"{collection}-{label}", LIVES[label])
            with mock.patch.object(billing_jobs, "time", mock.Mock(time=of.now)):
                await live(of, [player])
                await player.check()
            async with of.of.database.reading(whole=True) as connection:
                await verify_journal(connection)

    asyncio.run(work())
