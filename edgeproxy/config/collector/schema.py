"""The JSON Schema of collector.yaml."""

from edgeproxy.config import customers, hub_settings, limits, meters, networks, tiers, tls, tokens
from edgeproxy.config.collector import (
    alerts,
    anomalies,
    billing,
    catalog,
    credits,
    currencies,
    listeners,
    operators,
    pages,
    regions,
    settings,
)
from edgeproxy.config.schema import (
    FORMS,
    OFF,
    Form,
    Schema,
    always,
    build_any_of,
    build_number,
    build_schema,
    build_text,
)

MODELS = (
    tokens,
    networks,
    tls,
    hub_settings,
    limits,
    meters,
    tiers,
    customers,
    regions,
    operators,
    alerts,
    anomalies,
    credits,
    currencies,
    billing,
    pages,
    listeners,
    settings,
)
"""The modules with models, those that others import first."""
ELSEWHERE = {"Limit": {"name"}, "KeyLimit": {"name"}, "Key": {"sha256"}, "CollectorFile": {"tokens"}}
"""Fields that a model must have in the end, and a file need not: another file has them, or a default is made."""

FORMS.update(
    {
        settings.read_database: Form(
            always(build_text(r"sqlite:///.*[^/]|postgresql://.+", "sqlite:///var/collector/ledger.db"))
        ),
        settings.read_retention: Form(
            always(build_text(r"forever|[0-9]+ ?(day|d)", "400day", "forever")),
            lambda seconds: "forever" if seconds is None else f"{seconds / settings.DAY_SECONDS:g}day",
        ),
        billing.read_base: Form(always(build_text(r"https?://[^/?#@\s]+/?", billing.STRIPE))),
        billing.read_key_file: Form(
            always(build_text(r"(?!(sk|rk|pk|whsec)_).+", "/run/secrets/stripe")), lambda _: None
        ),
        catalog.read_price: Form(always(build_text(catalog.PRICE.pattern, "0.10", "0.01/1000")), lambda _: None),
        currencies.read_code: Form(always(build_text(currencies.CODE.pattern, "EUR"))),
        currencies.read_rate: Form(always(build_text(currencies.RATE.pattern, "0.86"))),
        credits.read_account: Form(always(build_text(r"\S(.*\S)?", "200"))),
        operators.read_issuer: Form(always(build_text(r"https?://.+", "https://login.example.com"))),
        pages.read_mailbox: Form(always(build_text(pages.MAILBOX.pattern, "edge@example.com"))),
        regions.read_region_url: Form(always(build_text(r"https?://[^?#@\s]+", "https://eu.api.example.com/healthz"))),
        operators.read_word: Form(always(build_text(r"[\s\S]*\S[\s\S]*"))),
        alerts.read_webhook: Form(always(build_text(r"https?://.+", "https://hooks.example.com/alerts"))),
        alerts.read_signing_secret: Form(always(build_text(r"whsec_.+"))),
        alerts.read_routing_key: Form(always(build_text(alerts.ROUTING_KEY.pattern))),
        alerts.read_smtp: Form(always(build_text(r"smtps?://.+", "smtps://USER:PASSWORD@mail.example.com:465"))),
        alerts.read_mail_address: Form(always(build_text(r".+@.+", "ops@example.com"))),
        alerts.read_one_or_many: Form(lambda inner: build_any_of(inner["items"], {**inner, "minItems": 1}), list),
        alerts.read_thresholds: Form(
            always(
                {
                    "type": "array",
                    "items": build_number(alerts.some_percent.lowest, alerts.some_percent.highest),
                    "maxItems": alerts.THRESHOLDS_MAX,
                }
            ),
            list,
        ),
        anomalies.read_score: Form(always(build_text(anomalies.DECIMAL.pattern, "3.0")), str),
        anomalies.read_similarity: Form(always(build_text(anomalies.DECIMAL.pattern, "0.9")), str),
        anomalies.read_days: Form(
            always(build_text("[0-9]+ ?(day|d)", "90day")), lambda seconds: f"{seconds / anomalies.DAY_SECONDS:g}day"
        ),
        anomalies.read_pause_at: Form(
            always(build_any_of(OFF, build_text(anomalies.DECIMAL.pattern, "5"))),
            lambda times: "off" if times is None else f"{times:g}",
        ),
    }
)


def build_collector_schema() -> Schema:
    """Make the JSON Schema of collector.yaml and of what it includes, draft 2020-12."""
    return build_schema("collector.yaml", settings.CollectorFile, MODELS, ELSEWHERE)
