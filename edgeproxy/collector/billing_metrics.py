"""Prometheus metrics of billing, built from its figures."""

from collections.abc import Iterable, Mapping, Sequence

from prometheus_client.core import GaugeMetricFamily

from edgeproxy.collector.billing.journal.postings import CENT, CREDIT
from edgeproxy.collector.billing.reports.revenue import CurrencyFigures, RevenueFigures
from edgeproxy.collector.billing.reports.status import BillingStatus
from edgeproxy.config.collector.currency_units import get_unit_count

USD = 1_000_000
"""Millicredits of a US dollar."""

Samples = Iterable[tuple[Sequence[str], float]]
"""The values of labels, and the value of the metric."""


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
    families = [
        *_build_currency_families(revenue.currencies),
        _build_family("billing_liability_usd", "Credits that customers have", to_usd(revenue.liability)),
        _build_family("billing_package_credits", "Credits that were bought so far", revenue.purchased / CREDIT),
        _build_labelled_family("billing_invoices", "Invoices, by state", "state", revenue.invoices),
        _build_labelled_family("billing_disputes", "Disputes of payments, by state", "state", revenue.disputes),
        _build_labelled_family("billing_invoice_held", "Invoices that wait for a person, by why", "why", revenue.held),
    ]
    if revenue.sales.conversion_rate is not None:
        about = "Purchases that were paid, of those begun in the last 30 days"
        families.append(_build_family("billing_conversion_rate", about, revenue.sales.conversion_rate))
    if revenue.sales.mean_purchase is not None:
        about = "What an average purchase of the last 30 days was for"
        families.append(_build_family("billing_package_average_usd", about, to_usd(revenue.sales.mean_purchase)))
    return families


def _build_currency_families(currencies: Mapping[str, CurrencyFigures]) -> list[GaugeMetricFamily]:
    """Build the metrics that have a sample per currency, in its whole units."""
    days = {code: figures.yesterday for code, figures in currencies.items()}
    return [
        _build_family_by(
            *("billing_revenue", "Revenue of the last day that is over, by the plan that customers had"),
            ("currency", "plan"),
            [
                ((code, plan), to_whole(amount, code))
                for code, figures in currencies.items()
                for plan, amount in figures.plans.items()
            ],
        ),
        _build_family_by(
            *("billing_cogs", "What usage of that day cost", ("currency",)),
            [((code,), to_whole(day.cost, code)) for code, day in days.items()],
        ),
        _build_family_by(
            *("billing_margin", "Its revenue less its cost", ("currency",)),
            [((code,), to_whole(day.revenue - day.cost, code)) for code, day in days.items()],
        ),
        _build_family_by(
            *("billing_margin_ratio", "Revenue of that day for each unit of its cost", ("currency",)),
            [((code,), day.margin) for code, day in days.items() if day.margin is not None],
        ),
        _build_family_by(
            *("billing_model_cost", "What the dearest models cost on the last day that is over"),
            ("currency", "model"),
            [
                ((code, model), to_whole(cost, code))
                for code, figures in currencies.items()
                for model, cost in figures.models.items()
            ],
        ),
        _build_family_by(
            *("billing_refunds", "What has gone back so far, disputes of credits too", ("currency",)),
            [((code,), to_whole(figures.refunds, code)) for code, figures in currencies.items()],
        ),
    ]


def to_whole(amount: int, currency: str) -> float:
    """Convert ten-thousandths of a currency's smallest unit to its whole units."""
    return amount / (CENT * get_unit_count(currency))


def to_usd(millicredits: int) -> float:
    """Convert millicredits to US dollars."""
    return millicredits / USD


def _build_drift_family(ratios: Mapping[tuple[str, str], float]) -> GaugeMetricFamily:
    return _build_family_by(
        *("billing_drift_ratio", "What share of units differed lately", ("kind", "meter")), ratios.items()
    )


def _build_family_by(name: str, about: str, labels: Sequence[str], samples: Samples) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, about, labels=labels)
    for label_values, value in samples:
        family.add_metric(label_values, value)
    return family


def _build_family(name: str, about: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, about, value=value)


def _build_labelled_family(name: str, about: str, label: str, values: object) -> GaugeMetricFamily:
    made = GaugeMetricFamily(name, about, labels=[label])
    assert isinstance(values, dict)
    for label_value, value in values.items():
        made.add_metric([str(label_value)], value)
    return made
