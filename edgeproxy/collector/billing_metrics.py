"""Prometheus metrics of billing, built from its figures."""

from collections.abc import Mapping

from prometheus_client.core import GaugeMetricFamily

from edgeproxy.collector.billing.journal.postings import CREDIT
from edgeproxy.collector.billing.reports.revenue import RevenueFigures
from edgeproxy.collector.billing.reports.status import BillingStatus

USD = 1_000_000
"""Millicredits of a US dollar."""


def build_billing_families(status: BillingStatus) -> list[GaugeMetricFamily]:
    """Build the metrics of the billing status."""
    families = [
        _build_labelled_family("billing_outbox_rows", "Usage on its way to Stripe, by state", "state", status.rows),
        _build_family("billing_export_lag_seconds", "Since the end of the oldest slice that Stripe lacks", status.lag),
        _build_labelled_family("billing_webhook_events", "Events of Stripe's, by state", "state", status.events),
        _build_drift_family(status.drift),
        _build_labelled_family(
            "billing_reconciled_seconds",
            "Since the end of the time for which books were last compared",
            "kind",
            status.reconciled,
        ),
        _build_family(
            "billing_draft_unheld_seconds",
            "Since the end of the oldest period whose draft at Stripe is not held",
            status.unheld,
        ),
        _build_family("billing_rollout_percent", "Percent of customers that are charged", status.percent),
    ]
    if status.is_charging is not None:
        families.append(_build_family("billing_charging", "1 unless charging is stopped", int(status.is_charging)))
    return families


def build_revenue_families(revenue: RevenueFigures) -> list[GaugeMetricFamily]:
    """Build the metrics of revenue."""
    day = revenue.yesterday
    families = [
        _build_labelled_family(
            *("billing_revenue_usd", "Revenue of the last day that is over, by the plan that customers had", "plan"),
            {plan: to_usd(amount) for plan, amount in revenue.plans.items()},
        ),
        _build_family("billing_cogs_usd", "What usage of that day cost", to_usd(day.cost)),
        _build_family("billing_margin_usd", "Its revenue less its cost", to_usd(day.revenue - day.cost)),
        _build_family("billing_liability_usd", "Credits that customers have", to_usd(revenue.liability)),
        _build_family("billing_refunds_usd", "What has gone back so far, disputes too", to_usd(revenue.refunds)),
        _build_family("billing_package_credits", "Credits that were bought so far", revenue.purchased / CREDIT),
        _build_labelled_family("billing_invoices", "Invoices, by state", "state", revenue.invoices),
        _build_labelled_family("billing_invoice_held", "Invoices that wait for a person, by why", "why", revenue.held),
        _build_labelled_family(
            *("billing_model_cost_usd", "What the dearest models cost on the last day that is over", "model"),
            {model: to_usd(cost) for model, cost in revenue.models.items()},
        ),
    ]
    if revenue.sales.conversion_rate is not None:
        about = "Purchases that were paid, of those begun in the last 30 days"
        families.append(_build_family("billing_conversion_rate", about, revenue.sales.conversion_rate))
    if revenue.sales.mean_purchase is not None:
        about = "What an average purchase of the last 30 days was for"
        families.append(_build_family("billing_package_average_usd", about, to_usd(revenue.sales.mean_purchase)))
    if day.margin is not None:
        families.append(
            _build_family("billing_margin_ratio", "Revenue of that day for each unit of its cost", day.margin)
        )
    return families


def to_usd(millicredits: int) -> float:
    """Millicredits in US dollars."""
    return millicredits / USD


def _build_drift_family(ratios: Mapping[tuple[str, str], float]) -> GaugeMetricFamily:
    made = GaugeMetricFamily("billing_drift_ratio", "What share of units differed lately", labels=["kind", "meter"])
    for labels, ratio in ratios.items():
        made.add_metric(labels, ratio)
    return made


def _build_family(name: str, about: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, about, value=value)


def _build_labelled_family(name: str, about: str, label: str, values: object) -> GaugeMetricFamily:
    made = GaugeMetricFamily(name, about, labels=[label])
    assert isinstance(values, dict)
    for label_value, value in values.items():
        made.add_metric([str(label_value)], value)
    return made
