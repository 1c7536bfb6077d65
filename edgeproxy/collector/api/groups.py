"""All groups of endpoints of the collector, in the order of the description."""

from collections.abc import Mapping

from edgeproxy.collector.api.access import GROUP as ACCESS
from edgeproxy.collector.api.alerts import GROUP as ALERTS
from edgeproxy.collector.api.audit import GROUP as AUDIT
from edgeproxy.collector.api.billing.handlers import GROUP as BILLING
from edgeproxy.collector.api.billing_details import GROUP as BILLING_DETAILS
from edgeproxy.collector.api.cancellations import GROUP as CANCELLATIONS
from edgeproxy.collector.api.checks import GROUP as CHECKS
from edgeproxy.collector.api.coupons import GROUP as COUPONS
from edgeproxy.collector.api.credits.handlers import GROUP as CREDITS
from edgeproxy.collector.api.customers import GROUP as CUSTOMERS
from edgeproxy.collector.api.directory import GROUP as DIRECTORY
from edgeproxy.collector.api.edges import GROUP as EDGES
from edgeproxy.collector.api.events import GROUP as EVENTS
from edgeproxy.collector.api.flags import GROUP as FLAGS
from edgeproxy.collector.api.group import Group, PathParameter
from edgeproxy.collector.api.incidents import GROUP as INCIDENTS
from edgeproxy.collector.api.invoices.handlers import GROUP as INVOICES
from edgeproxy.collector.api.keys import GROUP as KEYS
from edgeproxy.collector.api.maintenance import GROUP as MAINTENANCE
from edgeproxy.collector.api.price_changes.handlers import GROUP as PRICE_CHANGES
from edgeproxy.collector.api.privacy_requests import GROUP as PRIVACY_REQUESTS
from edgeproxy.collector.api.quarantine import GROUP as QUARANTINE
from edgeproxy.collector.api.quotas import GROUP as QUOTAS
from edgeproxy.collector.api.regions import GROUP as REGIONS
from edgeproxy.collector.api.reports.handlers import GROUP as REPORTS
from edgeproxy.collector.api.residency import GROUP as RESIDENCY
from edgeproxy.collector.api.rollout import GROUP as ROLLOUT
from edgeproxy.collector.api.service import GROUP as SERVICE
from edgeproxy.collector.api.spend_alerts import GROUP as SPEND_ALERTS
from edgeproxy.collector.api.tokens import GROUP as TOKENS
from edgeproxy.collector.api.traffic.handlers import GROUP as TRAFFIC
from edgeproxy.collector.api.usage.handlers import GROUP as USAGE
from edgeproxy.collector.api.webhook_endpoints import GROUP as WEBHOOK_ENDPOINTS
from edgeproxy.collector.api.webhooks import GROUP as WEBHOOKS

GROUPS: tuple[Group, ...] = (
    *(CUSTOMERS, KEYS, WEBHOOK_ENDPOINTS, FLAGS, ACCESS, QUOTAS, USAGE, EVENTS),
    *(
        BILLING,
        BILLING_DETAILS,
        CANCELLATIONS,
        COUPONS,
        PRICE_CHANGES,
        INVOICES,
        SPEND_ALERTS,
        CREDITS,
        WEBHOOKS,
        ROLLOUT,
        REPORTS,
    ),
    *(
        EDGES,
        TRAFFIC,
        QUARANTINE,
        CHECKS,
        DIRECTORY,
        REGIONS,
        ALERTS,
        INCIDENTS,
        MAINTENANCE,
        PRIVACY_REQUESTS,
        RESIDENCY,
        AUDIT,
        TOKENS,
        SERVICE,
    ),
)
PARAMETERS: Mapping[str, PathParameter] = {
    name: parameter for group in GROUPS for name, parameter in group.parameters.items()
}
"""The parameters of all paths, by name."""
