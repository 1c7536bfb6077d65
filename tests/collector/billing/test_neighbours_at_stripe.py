"""Lives with unusual combinations of events, at the Stripe sandbox, in both collection modes.

The combinations are plausible: a lost dispute and a void, a partial credit note between two changes, a change at the
exact end of a period. `test_lives_at_stripe.py` draws random lives.
"""

import itertools
from pathlib import Path

import pytest

from tests.collector.billing.test_lives import Step, read_lives
from tests.collector.billing.test_lives_at_stripe import StripePlayer, play
from tests.support.stripe_sandbox import Sandbox

OUT_OF_BAND = 1
"""The `calls` of a payment out of band."""
LIVES = read_lives("""
lost-then-void small@1 month jpy - 0.1
  pay 0 0.2 part=0.1
  lose 0 0.3
  void 0 0.35
  uncollectible 0 0.36
  change 0 0.4 plan=large@1
  win 0 0.5
  use 0 0.6 calls=399
  change 1 0.3 plan=small@1
  use 2 0.2 calls=200
partial-up-down small@1 month kwd THIRD 0.1
  credit 0 0.2 part=0.37
  change 0 0.3 plan=large@1
  change 0 0.4 plan=small@1
  credit 0 0.5 invoice=0.99 part=0.5
  change 0 0.6 plan=middle@1
  use 1 0.2 calls=300
  uncredit 1 0.3
month-year-coupon small@1 month usd AMOUNT 0.1
  use 0 0.3 calls=399
  change 0 0.5 plan=small@1 interval=year
  late 0 0.45 calls=390
  credit 1 0.2 invoice=0.5 part=0.3
  change 1 0.3 plan=large@1 interval=year
  void 1 0.4 invoice=0.99
  change 1 0.5 plan=small@1 interval=month
trial-quantity middle@1 month eur AMOUNT 0.0
  change 0 0.1 plan=middle@1 quantity=3
  use 0 0.15 calls=399
  change 0 0.2 plan=middle@1 quantity=1
  change 0 0.25 plan=small@1 interval=year quantity=5
  change 0 0.28 plan=middle@1 interval=month quantity=2
  use 0 0.6 calls=399
  credit 0 0.7 invoice=0.99 part=0.8
  change 1 0.1 plan=middle@1 quantity=3
  change 1 0.2 plan=middle@1 quantity=1
  change 2 0.01 plan=middle@1 quantity=2
scheduled-then-oob large@1 month kwd - 0.2
  change 0 0.4 plan=small@1
  pay 0 0.5 calls=1 part=1.0
  change 0 0.6 plan=middle@1
  change 0 0.7 plan=large@1 quantity=1
  change 0 0.8 plan=small@1 quantity=4
  pay 1 0.5 calls=1 invoice=0.99
  credit 1 0.6 part=0.6
  change 1 0.7 plan=large@1
uncollectible-then-paid large@1 month usd THIRD 0.1
  uncollectible 0 0.3
  change 0 0.4 plan=large@1 interval=year
  pay 0 0.5 part=1.0
  credit 0 0.6 part=0.5
  change 1 0.2 plan=small@1
  pay 1 0.3 calls=1 invoice=0.99
end-seconds small@1 month usd THIRD 0.0
  change 1 0.0 plan=large@1
  use 1 0.0 calls=399
  change 2 0.0 plan=small@1 interval=year quantity=9
  void 2 0.0 invoice=0.99
  end 2 0.5
  return 2 0.5 plan=middle@1
late-minimum middle@1 month jpy - 0.0
  use 0 0.8 calls=300
  late 0 0.85 calls=399
  late 0 0.9 calls=-60
  void 1 0.5 invoice=0.99
  late 0 0.95 calls=399
  use 1 0.6 calls=399
late-volume large@1 month kwd AMOUNT 0.0
  use 0 0.2 calls=299
  late 0 0.8 calls=1
  late 0 0.81 calls=399
  credit 1 0.2 invoice=0.99 part=0.9
  late 0 0.9 calls=-399
  use 1 0.9 calls=399
  late 1 0.95 calls=399
dispute-change-pay small@1 year jpy AMOUNT 0.1
  pay 0 0.2 part=0.1
  change 0 0.3 plan=large@1 interval=year
  pay 0 0.35 invoice=0.99 part=0.1
  lose 0 0.4
  change 0 0.5 plan=small@1 interval=month quantity=2
  pay 0 0.55 invoice=0.99 part=1.0
  lose 0 0.6 invoice=0.6
  change 1 0.5 plan=large@1 interval=year
  win 1 0.6
end-return-coupon small@1 month eur THIRD 0.1
  credit 0 0.2 part=1.0
  end 0 0.3
  return 0 0.4 plan=small@1 quantity=3
  end 0 0.5
  return 0 0.6 plan=large@1 interval=year
  void 0 0.7 invoice=0.99
  end 1 0.3
  return 1 0.4 plan=middle@1
oob-credit-upgrade small@1 month usd - 0.1
  pay 0 0.2 calls=1
  credit 0 0.3 part=0.4
  change 0 0.4 plan=large@1
  uncredit 0 0.5
  change 0 0.6 plan=large@1 interval=year
  credit 1 0.1 part=1.0
uncredit-between large@1 month eur AMOUNT 0.1
  credit 0 0.2 part=1.0
  change 0 0.3 plan=large@1 interval=year
  uncredit 0 0.4
  change 0 0.5 plan=small@1
  change 0 0.6 plan=large@1 interval=year
  void 0 0.7 invoice=0.99
  change 0 0.8 plan=middle@1
  use 1 0.2 calls=399
void-year-month small@1 year kwd THIRD 0.2
  change 0 0.3 plan=small@1 quantity=5
  void 0 0.4
  change 0 0.5 plan=small@1 quantity=9
  change 0 0.6 plan=small@1 interval=month quantity=2
  use 0 0.7 calls=399
  change 1 0.6 plan=small@1 interval=year quantity=9
negative-threshold small@1 month usd AMOUNT 0.0
  use 0 0.2 calls=399
  use 0 0.3 calls=-60
  use 0 0.4 calls=-60
  credit 0 0.5 invoice=0.99 part=1.0
  use 0 0.6 calls=399
  late 0 0.7 calls=-60
  use 1 0.2 calls=-60
  use 1 0.3 calls=30
void-proration-again small@1 month jpy - 0.1
  change 0 0.2 plan=middle@1
  void 0 0.3 invoice=0.99
  change 0 0.4 plan=large@1
  uncollectible 0 0.5 invoice=0.99
  change 0 0.6 plan=large@1 interval=year
  void 0 0.7 invoice=0.99
  change 1 0.2 plan=small@1 quantity=9
  use 1 0.4 calls=399
uncollectible-change-pay middle@1 month kwd AMOUNT 0.0
  use 0 0.5 calls=399
  uncollectible 0 0.6 invoice=0.99
  change 0 0.7 plan=large@1
  pay 0 0.8 part=1.0
  pay 0 0.85 invoice=0.99 part=0.1
  lose 0 0.9 invoice=0.99
  change 1 0.2 plan=middle@1 quantity=3
dispute-with-note large@1 month jpy THIRD 0.1
  pay 0 0.2 part=0.1
  credit 0 0.25 part=0.4
  lose 0 0.3
  credit 0 0.4 part=1.0
  change 0 0.5 plan=small@1
  change 0 0.6 plan=large@1 interval=year
  uncredit 0 0.7
trial-end-second middle@1 month usd AMOUNT 0.0
  change 0 10/31 plan=large@1 interval=year
  change 0 10/31 plan=middle@1 interval=month quantity=3
  use 0 10/31 calls=399
  credit 0 0.5 part=0.5
  change 1 0.0 plan=middle@1 quantity=1
note-void-note small@1 month eur - 0.1
  credit 0 0.2 part=0.5
  uncredit 0 0.25
  credit 0 0.3 part=1.0
  void 0 0.4
  change 0 0.5 plan=large@1
  pay 0 0.6 invoice=0.99 part=1.0
  credit 0 0.7 invoice=0.99 part=0.3
  change 0 0.8 plan=middle@1
  end 0 0.9
""")
SHORT = {
    ("meters", "note-void-note"),
    ("invoice_items", "partial-up-down"),
    ("meters", "end-seconds"),
}
"""The lives of a run that is not long."""


class Neighbour(StripePlayer):
    """A life with payments out of band."""

    async def _settle(self, step: Step) -> None:
        if step.kind != "pay" or step.calls != OUT_OF_BAND:
            return await super()._settle(step)
        rows = [row for row in await self.fetch_rows() if row.id in self._written and row.total > 0 and row.stripe_id]
        if rows:
            row = sorted(rows, key=lambda row: row.id)[int(step.invoice * len(rows))]
            await self.ask("POST", f"/v1/invoices/{row.stripe_id}/pay", "paid_out_of_band=true")
        return None


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("collection", "label"),
    [
        pytest.param(*case, marks=() if case in SHORT else pytest.mark.soak)
        for case in itertools.product(("invoice_items", "meters"), LIVES)
    ],
)
@pytest.mark.usefixtures("secret_key")
async def test_unusual_life_agrees_with_stripe(
    new_sandbox: Sandbox, tmp_path: Path, database: str, collection: str, label: str
) -> None:
    lives = {f"{collection}-{label}": LIVES[label]}
    assert await play(tmp_path, database, new_sandbox, collection, lives, Neighbour)
