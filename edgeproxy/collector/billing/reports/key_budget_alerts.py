"""The alerts of key budgets with reached thresholds. Pure."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from edgeproxy.base.clock import EPOCH
from edgeproxy.collector.alerts.alert import Alert
from edgeproxy.collector.alerts.kinds import AlertKind
from edgeproxy.collector.billing.reports.key_spend import BudgetUse


def make_budget_alerts(use: BudgetUse, thresholds: Iterable[int], now: float) -> Iterator[Alert]:
    """Yield an alert for each threshold, in percent, that a budget has reached at edge time `now`.

    There are none above 100, because edges refuse requests from there on, and none if no key of the budget works.
    """
    if use.has_ended:
        return
    key, budget = use.key, use.budget
    first = datetime.fromtimestamp(use.period.since + EPOCH, UTC)
    when = f"{first:%Y-%m-%d}" if budget.per == "day" else f"{first:%Y-%m}"
    for percent in thresholds:
        if percent <= 100 and use.percent is not None and use.percent >= percent:
            yield Alert(
                key=f"key-budget:{budget.id}:{when}:{percent}",
                kind=AlertKind.KEY_BUDGET_REACHED,
                severity="info" if percent < 100 else "warn",
                customer=key.customer,
                title=f"the key {key.start}… of {key.customer} has used {percent} % of its budget, {when}",
                details={
                    "key": key.id,
                    "start": key.start,
                    "name": key.name,
                    "threshold": percent,
                    **budget.to_response(),
                    "used": use.used,
                    "resets": use.resets,
                },
                at=now + EPOCH,
            )
