"""The gates of the roll-out: who is charged, and whether more customers may be. Pure.

A customer's place is a number from 0 to 9999, so that raising the percentage only adds customers. A step up needs the
gates of the stage that it leaves to be open; a step down needs none.
"""

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from edgeproxy.collector.billing.mismatch import WARN_PARTS, Drift

PLACES = 10_000
PERCENT_MAX = 100
MARGIN_MIN = 4.0
"""Revenue for each unit of cost."""
PURCHASES_MIN = 20
"""The fewest purchases of which a share is meaningful."""
PURCHASE_SHARE_MIN = 0.95
WEBHOOK_SECONDS_MAX = 45.0
ERROR_SHARE_MAX = 0.001
REFUSALS_MAX = 2.0
"""Customers paused with 402 for each that is usual."""

Mode = Literal["off", "shadow", "live"]
Stage = Literal["shadow", "few", "many"]


def compute_place(customer: str) -> int:
    """Return the customer's place among those who are charged one after another, from 0 to 9999."""
    return int(hashlib.sha256(f"billing:{customer}".encode()).hexdigest()[:8], 16) % PLACES


def is_charged(customer: str, mode: Mode, percent: int, allow: Collection[str]) -> bool:
    """Return whether this customer is charged: in `shadow` those in `allow`, in `live` also this percentage of all."""
    if mode == "off":
        return False
    return customer in allow or (mode == "live" and compute_place(customer) < PLACES // 100 * percent)


@dataclass(frozen=True, slots=True)
class StageFigures:
    """The figures of the stage that is to be left; None where they were not measured."""

    seconds: float
    """Seconds since this stage began."""
    shadow_compared: int | None = None
    """Invoices of `allow` that were compared with the shadow log."""
    shadow_different: int | None = None
    calculation_errors: int | None = None
    drift: Drift | None = None
    """The drift between our books and Stripe's in this stage: of meter events, or of invoices."""
    purchases: int | None = None
    purchases_succeeded: int | None = None
    webhooks: int | None = None
    webhook_median: float | None = None
    """Seconds from an event to its effect."""
    requests: int | None = None
    errors: int | None = None
    refused: float | None = None
    """Customers who were paused with 402 in the last day."""
    refused_usually: float | None = None
    """Customers a day who were paused with 402, over the seven days before."""
    margin: float | None = None
    """Revenue of a day for each unit of its cost."""
    paused: int | None = None
    """Customers who were paused because their usage was out of the ordinary."""
    closed_runs: int | None = None
    """Runs of invoices that were closed in this stage."""


class Gate(NamedTuple):
    """A condition of the next step, with its figure."""

    name: str
    condition: str
    figure: str
    is_open: bool

    def to_response(self) -> dict[str, object]:
        """Return the gate as the API writes it."""
        return {"name": self.name, "required": self.condition, "figure": self.figure, "is_open": self.is_open}


UNMEASURED = "not measured"
Judge = Callable[[StageFigures], tuple[str, bool]]


def _judge_age(seconds: float, written: str) -> tuple[str, str, Judge]:
    return "time in this stage", f"at least {written}", lambda f: (f"{f.seconds / 60:.0f} min", f.seconds >= seconds)


def _judge_shadow(f: StageFigures) -> tuple[str, bool]:
    if not f.shadow_compared or f.shadow_different is None:
        return UNMEASURED, False
    return f"{f.shadow_different} of {f.shadow_compared} differ", f.shadow_different == 0


def _judge_variance(f: StageFigures) -> tuple[str, bool]:
    if f.drift is None or not f.drift.compared:
        return UNMEASURED, False
    figure = f"{100 * f.drift.ratio:.4f} % of {f.drift.units} units"
    return figure, f.drift.different * WARN_PARTS < f.drift.units or not f.drift.different


def _judge_purchases(f: StageFigures) -> tuple[str, bool]:
    if f.purchases is None or f.purchases_succeeded is None:
        return UNMEASURED, False
    figure = f"{f.purchases_succeeded} of {f.purchases}"
    if f.purchases < PURCHASES_MIN:
        return f"{figure}, too few to say", False
    return figure, f.purchases_succeeded > PURCHASE_SHARE_MIN * f.purchases


def _judge_webhooks(f: StageFigures) -> tuple[str, bool]:
    if not f.webhooks or f.webhook_median is None:
        return UNMEASURED, False
    return f"{f.webhook_median:.1f} s of {f.webhooks}", f.webhook_median < WEBHOOK_SECONDS_MAX


def _judge_errors(f: StageFigures) -> tuple[str, bool]:
    if not f.requests or f.errors is None:
        return UNMEASURED, False
    return f"{f.errors} of {f.requests}", f.errors < ERROR_SHARE_MAX * f.requests


def _judge_refusals(f: StageFigures) -> tuple[str, bool]:
    if f.refused is None or f.refused_usually is None:
        return UNMEASURED, False
    return f"{f.refused:g} a day, {f.refused_usually:g} usually", f.refused <= REFUSALS_MAX * f.refused_usually


def _judge_margin(f: StageFigures) -> tuple[str, bool]:
    return (UNMEASURED, False) if f.margin is None else (f"{f.margin:.2f} ×", f.margin > MARGIN_MIN)


def _judge_closed(f: StageFigures) -> tuple[str, bool]:
    return (UNMEASURED, False) if f.closed_runs is None else (str(f.closed_runs), f.closed_runs > 0)


def _judge_none(count: int | None) -> tuple[str, bool]:
    return (UNMEASURED, False) if count is None else (str(count), count == 0)


CLOSED = ("closed invoice runs", "at least 1", _judge_closed)
CALCULATION: tuple[str, str, Judge] = ("errors of calculation", "none", lambda f: _judge_none(f.calculation_errors))
VARIANCE = ("variance to Stripe", "below 0.01 %", _judge_variance)

GATES: Mapping[Stage, Sequence[tuple[str, str, Judge]]] = {
    "shadow": (
        _judge_age(7200, "2 h"),
        ("shadow and real invoices", "the same", _judge_shadow),
        CALCULATION,
        VARIANCE,
        CLOSED,
    ),
    "few": (
        _judge_age(1800, "30 min"),
        ("purchases that succeed", f"more than 95 % of at least {PURCHASES_MIN}", _judge_purchases),
        ("median from event to effect", "below 45 s", _judge_webhooks),
        CALCULATION,
        VARIANCE,
        CLOSED,
    ),
    "many": (
        _judge_age(3600, "60 min"),
        ("error rate", "below 0.1 %", _judge_errors),
        ("customers paused with 402", "at most twice as many as by day in the 7 days before", _judge_refusals),
        ("daily margin", "above 4 ×", _judge_margin),
        ("customers paused for their usage", "none", lambda f: _judge_none(f.paused)),
        CLOSED,
    ),
}
"""The conditions of each stage before more customers are charged."""


def get_stage(percent: int) -> Stage:
    """Return the stage in which this percentage is charged."""
    if percent == 0:
        return "shadow"
    return "few" if percent < 25 else "many"


def evaluate_gates(now: int, then: int, figures: StageFigures) -> list[Gate]:
    """Return the gates of a step from `now` to `then` percent, with their figures; none for a step down."""
    if then <= now:
        return []
    return [Gate(name, condition, *judge(figures)) for name, condition, judge in GATES[get_stage(now)]]
