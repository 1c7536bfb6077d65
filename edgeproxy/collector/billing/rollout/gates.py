"""The gates of the billing roll-out: the customers that are charged, and whether the percentage may be raised. Pure.

Each customer has a fixed place from 0 to 9999, so that a higher percentage only adds customers. A step up requires all
gates of the current stage to be open; a step down requires none.
"""

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from typing_extensions import TypedDict

from edgeproxy.collector.billing.mismatch import WARN_PARTS, Drift

PLACES = 10_000
PERCENT_MAX = 100
MARGIN_MIN = 4.0
"""Revenue per unit of cost."""
PURCHASES_MIN = 20
"""The fewest purchases for a meaningful share."""
PURCHASE_SHARE_MIN = 0.95
WEBHOOK_SECONDS_MAX = 45.0
"""The bound on the median time from an event to its effect."""
ERROR_SHARE_MAX = 0.001
"""The bound on the share of failed requests."""
REFUSALS_MAX = 2.0
"""The bound on customers paused with 402, as a multiple of the usual number."""

Mode = Literal["off", "shadow", "live"]
Stage = Literal["shadow", "few", "many"]


def compute_place(customer: str) -> int:
    """Return the customer's place, from 0 to 9999: customers with a lower place are charged first."""
    # A hash of the name: each customer keeps its place at every collector, and a higher percentage only adds customers.
    return int(hashlib.sha256(f"billing:{customer}".encode()).hexdigest()[:8], 16) % PLACES


def is_charged(customer: str, mode: Mode, percent: int, allow: Collection[str]) -> bool:
    """Return whether this customer is charged: in `shadow` if it is in `allow`, in `live` also by the percentage."""
    if mode == "off":
        return False
    return customer in allow or (mode == "live" and compute_place(customer) < PLACES // 100 * percent)


def settle_percent(stored: int | None, mode: Mode, file_percent: int) -> int:
    """Return the percentage to charge, from the stored one (None if none yet) and the file's upper bound.

    In `shadow` it is 0, and `live` starts with the stored 0: the file can lower it, but never raise it. An installation
    that starts with `live` starts with the file's percentage.
    """
    if mode == "shadow":
        return 0
    return file_percent if stored is None else min(stored, file_percent)


@dataclass(frozen=True, slots=True)
class StageFigures:
    """The figures of the current stage; None if not measured."""

    seconds: float
    """Seconds since this stage began."""
    shadow_for: float = 4 * 3600.0
    """Only `allow` is charged for this many seconds before the first step."""
    shadow_compared: int | None = None
    """Invoices of `allow` that were compared with the shadow log."""
    shadow_different: int | None = None
    calculation_errors: int | None = None
    drift: Drift | None = None
    """The drift between our books and Stripe's in this stage, for meter events or invoices."""
    purchases: int | None = None
    purchases_succeeded: int | None = None
    webhooks: int | None = None
    webhook_median: float | None = None
    """Seconds from an event to its effect."""
    requests: int | None = None
    errors: int | None = None
    refused: float | None = None
    """Customers paused with 402 in the last day."""
    refused_usually: float | None = None
    """Customers per day paused with 402, over the seven days before."""
    margin: float | None = None
    """Revenue of a day per unit of its cost."""
    paused: int | None = None
    """Customers paused because of unusual usage."""
    closed_runs: int | None = None
    """Invoice runs closed in this stage."""


class RolloutGate(TypedDict):
    """A condition of a step."""

    name: str
    """The name of the gate."""
    required: str
    """The condition that opens the gate."""
    figure: str
    """The current figure."""
    is_open: bool
    """True if the condition is met."""


class Gate(NamedTuple):
    """An evaluated condition of the next step, with its figure."""

    name: str
    condition: str
    figure: str
    is_open: bool

    def to_response(self) -> RolloutGate:
        """Return the gate in the form of the API."""
        return {"name": self.name, "required": self.condition, "figure": self.figure, "is_open": self.is_open}


class Evaluation(NamedTuple):
    """The result of a condition: the figure in words, and whether the gate is open."""

    figure: str
    is_open: bool


NOT_MEASURED = Evaluation("not measured", is_open=False)


class Condition(NamedTuple):
    """A condition of a stage before it is evaluated: its name, its bound in words, and its function."""

    name: str
    bound: str
    """The bound of the figure, in words."""
    judge: Callable[[StageFigures], Evaluation]


def _require_age(minutes: int, bound: str) -> Condition:
    def judge(figures: StageFigures) -> Evaluation:
        return Evaluation(f"{figures.seconds / 60:.0f} min", figures.seconds >= 60 * minutes)

    return Condition("time in this stage", bound, judge)


def _judge_shadow_age(figures: StageFigures) -> Evaluation:
    figure = f"{figures.seconds / 60:.0f} of {figures.shadow_for / 60:.0f} min"
    return Evaluation(figure, figures.seconds >= figures.shadow_for)


def _judge_shadow(figures: StageFigures) -> Evaluation:
    # No comparison is no proof, so the gate stays closed.
    if not figures.shadow_compared or figures.shadow_different is None:
        return NOT_MEASURED
    return Evaluation(f"{figures.shadow_different} of {figures.shadow_compared} differ", figures.shadow_different == 0)


def _judge_variance(figures: StageFigures) -> Evaluation:
    if figures.drift is None or not figures.drift.compared:
        return NOT_MEASURED
    drift = figures.drift
    # The second condition is for sums that are all zero, where 0 < 0 would close the gate.
    is_small = drift.different * WARN_PARTS < drift.units or not drift.different
    return Evaluation(f"{100 * drift.ratio:.4f} % of {drift.units} units", is_small)


def _judge_purchases(figures: StageFigures) -> Evaluation:
    if figures.purchases is None or figures.purchases_succeeded is None:
        return NOT_MEASURED
    figure = f"{figures.purchases_succeeded} of {figures.purchases}"
    if figures.purchases < PURCHASES_MIN:
        return Evaluation(f"{figure}, too few to say", is_open=False)
    return Evaluation(figure, figures.purchases_succeeded > PURCHASE_SHARE_MIN * figures.purchases)


def _judge_webhooks(figures: StageFigures) -> Evaluation:
    if not figures.webhooks or figures.webhook_median is None:
        return NOT_MEASURED
    return Evaluation(
        f"{figures.webhook_median:.1f} s of {figures.webhooks}", figures.webhook_median < WEBHOOK_SECONDS_MAX
    )


def _judge_errors(figures: StageFigures) -> Evaluation:
    if not figures.requests or figures.errors is None:
        return NOT_MEASURED
    return Evaluation(f"{figures.errors} of {figures.requests}", figures.errors < ERROR_SHARE_MAX * figures.requests)


def _judge_refusals(figures: StageFigures) -> Evaluation:
    if figures.refused is None or figures.refused_usually is None:
        return NOT_MEASURED
    figure = f"{figures.refused:g} a day, {figures.refused_usually:g} usually"
    # With `<` no installation without earlier refusals could pass.
    return Evaluation(figure, figures.refused <= REFUSALS_MAX * figures.refused_usually)


def _judge_margin(figures: StageFigures) -> Evaluation:
    if figures.margin is None:
        return NOT_MEASURED
    return Evaluation(f"{figures.margin:.2f} ×", figures.margin > MARGIN_MIN)


def _judge_closed(figures: StageFigures) -> Evaluation:
    if figures.closed_runs is None:
        return NOT_MEASURED
    return Evaluation(str(figures.closed_runs), figures.closed_runs > 0)


def _judge_none(count: int | None) -> Evaluation:
    """Return an open gate if this count is 0."""
    return NOT_MEASURED if count is None else Evaluation(str(count), count == 0)


CLOSED = Condition("closed invoice runs", "at least 1", _judge_closed)
CALCULATION = Condition("errors of calculation", "none", lambda figures: _judge_none(figures.calculation_errors))
VARIANCE = Condition("variance to Stripe", "below 0.01 %", _judge_variance)

CONDITIONS: Mapping[Stage, Sequence[Condition]] = {
    "shadow": (
        Condition("time at 0 %", "at least shadow_for", _judge_shadow_age),
        Condition("shadow and real invoices", "the same", _judge_shadow),
        CALCULATION,
        VARIANCE,
        CLOSED,
    ),
    "few": (
        _require_age(30, "at least 30 min"),
        Condition("purchases that succeed", f"more than 95 % of at least {PURCHASES_MIN}", _judge_purchases),
        Condition("median from event to effect", "below 45 s", _judge_webhooks),
        CALCULATION,
        VARIANCE,
        CLOSED,
    ),
    "many": (
        _require_age(60, "at least 60 min"),
        Condition("error rate", "below 0.1 %", _judge_errors),
        Condition("customers paused with 402", "at most twice as many as by day in the 7 days before", _judge_refusals),
        Condition("daily margin", "above 4 ×", _judge_margin),
        Condition("customers paused for their usage", "none", lambda figures: _judge_none(figures.paused)),
        CLOSED,
    ),
}
"""The conditions that each stage must meet before more customers are charged."""


def get_stage(percent: int) -> Stage:
    """Return the stage of a percentage."""
    if percent == 0:
        return "shadow"
    return "few" if percent < 25 else "many"


def evaluate_gates(percent: int, target: int, figures: StageFigures) -> list[Gate]:
    """Return the gates of a step from `percent` to `target` with their figures; none for a step down."""
    if target <= percent:
        return []
    conditions = CONDITIONS[get_stage(percent)]
    return [Gate(condition.name, condition.bound, *condition.judge(figures)) for condition in conditions]
