"""What the metrics of billing are, of its figures."""

from collections.abc import Mapping

from prometheus_client.core import GaugeMetricFamily

from edgeproxy.collector.billing.journal.postings import CREDIT
from edgeproxy.collector.billing.reports.revenue import RevenueFigures
from edgeproxy.collector.billing.reports.status import BillingStatus

USD = 1_000_000
"""Millicredits of a US dollar."""


def of_billing(standing: BillingStatus) -> list[GaugeMetricFamily]:
    """Tell how billing is."""
    found = [
        _labelled("billing_outbox_rows", "Usage on its way to Stripe, by state", "state", standing.rows),
        _one("billing_export_lag_seconds", "Since the end of the oldest slice that Stripe lacks", standing.lag),
        _labelled("billing_webhook_events", "Events of Stripe's, by state", "state", standing.events),
        _drift(standing.drift),
        _labelled(
            "billing_reconciled_seconds",
            "Since the end of the time for which books were last compared",
            "kind",
            standing.reconciled,
        ),
        _one(
            "billing_draft_unheld_seconds",
            "Since the end of the oldest period whose draft at Stripe is not held",
            standing.unheld,
        ),
        _one("billing_rollout_percent", "Percent of customers that are charged", standing.percent),
    ]
    if standing.is_charging is not None:
        found.append(_one("billing_charging", "1 unless charging is stopped", int(standing.is_charging)))
    return found


def of_money(takings: RevenueFigures) -> list[GaugeMetricFamily]:
    """Tell what was taken."""
    day = takings.yesterday
    found = [
        _labelled(
            *("billing_revenue_usd", "Revenue of the last day that is over, by the plan that customers had", "plan"),
            {plan: usd(amount) for plan, amount in takings.plans.items()},
        ),
        _one("billing_cogs_usd", "What usage of that day cost", usd(day.cost)),
        _one("billing_margin_usd", "Its revenue less its cost", usd(day.revenue - day.cost)),
        _one("billing_liability_usd", "Credits that customers have", usd(takings.liability)),
        _one("billing_refunds_usd", "What has gone back so far, disputes too", usd(takings.refunds)),
        _one("billing_package_credits", "Credits that were bought so far", takings.purchased / CREDIT),
        _labelled("billing_invoices", "Invoices, by state", "state", takings.invoices),
        _labelled("billing_invoice_held", "Invoices that wait for a person, by why", "why", takings.held),
        _labelled(
            *("billing_model_cost_usd", "What the dearest models cost on the last day that is over", "model"),
            {model: usd(cost) for model, cost in takings.models.items()},
        ),
    ]
    if day.margin is not None:
        found.append(_one("billing_margin_ratio", "Revenue of that day for each unit of its cost", day.margin))
    return found


def usd(millicredits: int) -> float:
    """Millicredits in US dollars."""
    return millicredits / USD


def _drift(ratios: Mapping[tuple[str, str], float]) -> GaugeMetricFamily:
    made = GaugeMetricFamily("billing_drift_ratio", "What share of units differed lately", labels=["kind", "meter"])
    for labels, ratio in ratios.items():
        made.add_metric(labels, ratio)
    return made


def _one(name: str, about: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, about, value=value)


def _labelled(name: str, about: str, label: str, values: object) -> GaugeMetricFamily:
    made = GaugeMetricFamily(name, about, labels=[label])
    assert isinstance(values, dict)
    for said, value in values.items():
        made.add_metric([str(said)], value)
    return made
