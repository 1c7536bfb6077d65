"""All groups of endpoints of the collector, in the order of the description."""

from collections.abc import Mapping

from edgeproxy.collector.api.access.endpoints import GROUP as ACCESS
from edgeproxy.collector.api.alerts.endpoints import GROUP as ALERTS
from edgeproxy.collector.api.audit.endpoints import GROUP as AUDIT
from edgeproxy.collector.api.billing.endpoints import GROUP as BILLING
from edgeproxy.collector.api.billing_details.endpoints import GROUP as BILLING_DETAILS
from edgeproxy.collector.api.cancellations.endpoints import GROUP as CANCELLATIONS
from edgeproxy.collector.api.checks.endpoints import GROUP as CHECKS
from edgeproxy.collector.api.coupons.endpoints import GROUP as COUPONS
from edgeproxy.collector.api.credits.endpoints import GROUP as CREDITS
from edgeproxy.collector.api.customers.endpoints import GROUP as CUSTOMERS
from edgeproxy.collector.api.directory.endpoints import GROUP as DIRECTORY
from edgeproxy.collector.api.edges.endpoints import GROUP as EDGES
from edgeproxy.collector.api.events.endpoints import GROUP as EVENTS
from edgeproxy.collector.api.flags.endpoints import GROUP as FLAGS
from edgeproxy.collector.api.group import AnyGroup, PathParameter
from edgeproxy.collector.api.incidents.endpoints import GROUP as INCIDENTS
from edgeproxy.collector.api.invoices.endpoints import GROUP as INVOICES
from edgeproxy.collector.api.keys.endpoints import GROUP as KEYS
from edgeproxy.collector.api.maintenance.endpoints import GROUP as MAINTENANCE
from edgeproxy.collector.api.price_changes.endpoints import GROUP as PRICE_CHANGES
from edgeproxy.collector.api.privacy_requests.endpoints import GROUP as PRIVACY_REQUESTS
from edgeproxy.collector.api.quarantine.endpoints import GROUP as QUARANTINE
from edgeproxy.collector.api.quotas.endpoints import GROUP as QUOTAS
from edgeproxy.collector.api.regions.endpoints import GROUP as REGIONS
from edgeproxy.collector.api.reports.endpoints import GROUP as REPORTS
from edgeproxy.collector.api.residency.endpoints import GROUP as RESIDENCY
from edgeproxy.collector.api.rollout.endpoints import GROUP as ROLLOUT
from edgeproxy.collector.api.service.endpoints import GROUP as SERVICE
from edgeproxy.collector.api.spend_alerts.endpoints import GROUP as SPEND_ALERTS
from edgeproxy.collector.api.tokens.endpoints import GROUP as TOKENS
from edgeproxy.collector.api.traffic.endpoints import GROUP as TRAFFIC
from edgeproxy.collector.api.usage.endpoints import GROUP as USAGE
from edgeproxy.collector.api.webhook_endpoints.endpoints import GROUP as WEBHOOK_ENDPOINTS
from edgeproxy.collector.api.webhooks.endpoints import GROUP as WEBHOOKS

GROUPS: tuple[AnyGroup, ...] = (
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
