"""Who is charged, and whether more may be. Pure.

A customer's place is a number from 0 to 9999, so that raising the percentage only adds customers. A step up asks for
the gates of the stage that it leaves; a step down asks for none.
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
"""Purchases of which a share says something."""
PURCHASE_SHARE_MIN = 0.95
WEBHOOK_SECONDS_MAX = 45.0
ERROR_SHARE_MAX = 0.001
REFUSALS_MAX = 2.0
"""Customers paused with 402 for each that is usual."""

Mode = Literal["off", "shadow", "live"]
Stage = Literal["shadow", "few", "many"]


def place(customer: str) -> int:
    """The customer's place among those who are charged one after another, from 0 to 9999."""
    return int(hashlib.sha256(f"billing:{customer}".encode()).hexdigest()[:8], 16) % PLACES


def is_charged(customer: str, mode: Mode, percent: int, allow: Collection[str]) -> bool:
    """Whether this customer is charged: in `shadow` who is in `allow`, in `live` also so many percent of all."""
    if mode == "off":
        return False
    return customer in allow or (mode == "live" and place(customer) < PLACES // 100 * percent)


@dataclass(frozen=True, slots=True)
class Figures:
    """What is known of the stage that is to be left; None where nobody has measured it."""

    seconds: float
    """Since this stage began."""
    shadow_compared: int | None = None
    """Invoices of `allow` that were held against what shadow rated."""
    shadow_different: int | None = None
    calculation_errors: int | None = None
    drift: Drift | None = None
    """Between our books and Stripe's, of this stage: of what was told to its meters, or of invoices."""
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
    """The same by day, over seven days before."""
    margin: float | None = None
    """Revenue of a day for each unit of its cost."""
    paused: int | None = None
    """Customers who were paused because their usage was out of the ordinary."""
    closed_runs: int | None = None
    """Runs of invoices that were closed in this stage."""


class Gate(NamedTuple):
    """A condition of the next step, with its figure."""

    name: str
    wanted: str
    figure: str
    is_open: bool


UNMEASURED = "not measured"
Judge = Callable[[Figures], tuple[str, bool]]


def _age(seconds: float, written: str) -> tuple[str, str, Judge]:
    return "time in this stage", f"at least {written}", lambda f: (f"{f.seconds / 60:.0f} min", f.seconds >= seconds)


def _shadow(f: Figures) -> tuple[str, bool]:
    if not f.shadow_compared or f.shadow_different is None:
        return UNMEASURED, False
    return f"{f.shadow_different} of {f.shadow_compared} differ", f.shadow_different == 0


def _calculation(f: Figures) -> tuple[str, bool]:
    return _count(f.calculation_errors)


def _variance(f: Figures) -> tuple[str, bool]:
    if f.drift is None or not f.drift.compared:
        return UNMEASURED, False
    said = f"{100 * f.drift.ratio:.4f} % of {f.drift.units} units"
    return said, f.drift.different * WARN_PARTS < f.drift.units or not f.drift.different


def _purchases(f: Figures) -> tuple[str, bool]:
    if f.purchases is None or f.purchases_succeeded is None:
        return UNMEASURED, False
    said = f"{f.purchases_succeeded} of {f.purchases}"
    if f.purchases < PURCHASES_MIN:
        return f"{said}, too few to say", False
    return said, f.purchases_succeeded > PURCHASE_SHARE_MIN * f.purchases


def _webhooks(f: Figures) -> tuple[str, bool]:
    if not f.webhooks or f.webhook_median is None:
        return UNMEASURED, False
    return f"{f.webhook_median:.1f} s of {f.webhooks}", f.webhook_median < WEBHOOK_SECONDS_MAX


def _errors(f: Figures) -> tuple[str, bool]:
    if not f.requests or f.errors is None:
        return UNMEASURED, False
    return f"{f.errors} of {f.requests}", f.errors < ERROR_SHARE_MAX * f.requests


def _refusals(f: Figures) -> tuple[str, bool]:
    if f.refused is None or f.refused_usually is None:
        return UNMEASURED, False
    return f"{f.refused:g} a day, {f.refused_usually:g} usually", f.refused <= REFUSALS_MAX * f.refused_usually


def _margin(f: Figures) -> tuple[str, bool]:
    return (UNMEASURED, False) if f.margin is None else (f"{f.margin:.2f} ×", f.margin > MARGIN_MIN)


def _paused(f: Figures) -> tuple[str, bool]:
    return _count(f.paused)


def _closed(f: Figures) -> tuple[str, bool]:
    return (UNMEASURED, False) if f.closed_runs is None else (str(f.closed_runs), f.closed_runs > 0)


def _count(found: int | None) -> tuple[str, bool]:
    return (UNMEASURED, False) if found is None else (str(found), found == 0)


CLOSED = ("closed invoice runs", "at least 1", _closed)
CALCULATION = ("errors of calculation", "none", _calculation)
VARIANCE = ("variance to Stripe", "below 0.01 %", _variance)

GATES: Mapping[Stage, Sequence[tuple[str, str, Judge]]] = {
    "shadow": (
        _age(7200, "2 h"),
        ("shadow and real invoices", "the same", _shadow),
        CALCULATION,
        VARIANCE,
        CLOSED,
    ),
    "few": (
        _age(1800, "30 min"),
        ("purchases that succeed", f"more than 95 % of at least {PURCHASES_MIN}", _purchases),
        ("median from event to effect", "below 45 s", _webhooks),
        CALCULATION,
        VARIANCE,
        CLOSED,
    ),
    "many": (
        _age(3600, "60 min"),
        ("error rate", "below 0.1 %", _errors),
        ("customers paused with 402", "at most twice as many as by day in the 7 days before", _refusals),
        ("daily margin", "above 4 ×", _margin),
        ("customers paused for their usage", "none", _paused),
        CLOSED,
    ),
}
"""What each stage asks for before more customers are charged."""


def stage(percent: int) -> Stage:
    """The stage in which so many percent are charged."""
    if percent == 0:
        return "shadow"
    return "few" if percent < 25 else "many"


def gates(now: int, then: int, figures: Figures) -> list[Gate]:
    """Return the gates of a step from `now` to `then` percent, with their figures; none for a step down."""
    if then <= now:
        return []
    return [Gate(name, wanted, *judge(figures)) for name, wanted, judge in GATES[stage(now)]]
