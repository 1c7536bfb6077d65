"""The table of endpoints: access."""

from edgeproxy.collector.api.access.handlers import AccessHandlers
from edgeproxy.collector.api.access.models import Access
from edgeproxy.collector.api.endpoint import OWN, READERS, Endpoint
from edgeproxy.collector.api.group import CUSTOMER, Group

GROUP = Group(
    "access",
    "Limits that may refuse a customer's requests now, and whether the customer may call.",
    AccessHandlers,
    (
        Endpoint(
            "GET",
            "/v1/customers/{customer}/access",
            AccessHandlers.fetch_access,
            "Fetch whether a customer may call now, with the use, the allowed amount and the end of each limit.",
            roles=READERS | OWN,
            response=Access,
            errors={409: "The tier of the customer is not configured here."},
        ),
    ),
    parameters={"customer": CUSTOMER},
)
