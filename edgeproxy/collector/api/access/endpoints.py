"""The table of endpoints: access."""

from edgeproxy.collector.api.access.handlers import AccessHandlers
from edgeproxy.collector.api.access.models import Access
from edgeproxy.collector.api.endpoint import OWN, READERS, Endpoint
from edgeproxy.collector.api.group import CUSTOMER, Group

GROUP = Group(
    "access",
    "Whether customers may call now, and each limit that may refuse them.",
    AccessHandlers,
    (
        Endpoint(
            "GET",
            "/v1/customers/{customer}/access",
            AccessHandlers.fetch_access,
            "Fetch whether a customer may call now: each limit with used, allowed, its end, and what ends a refusal.",
            roles=READERS | OWN,
            response=Access,
            errors={409: "The tier of the customer is not configured here."},
        ),
    ),
    parameters={"customer": CUSTOMER},
)
