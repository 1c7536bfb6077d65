"""The table of endpoints: quotas."""

from edgeproxy.collector.api.endpoint import EDGE, JSON, OWN, READERS, SERVICE, Endpoint
from edgeproxy.collector.api.group import CUSTOMER, Group, PathParameter
from edgeproxy.collector.api.quotas.handlers import QuotaHandlers
from edgeproxy.collector.api.quotas.models import (
    AllocatedItem,
    AllocateItemRequest,
    AllocationList,
    AllocationsQuery,
    QuotaCounts,
    QuotaCountsQuery,
    QuotaList,
)

GROUP = Group(
    "quotas",
    "Quotas of customers, and the items that services allocate from them.",
    QuotaHandlers,
    (
        Endpoint(
            "GET",
            "/v1/customers/{customer}/quotas",
            QuotaHandlers.list_quotas,
            "List the quotas of a customer with usage and projection.",
            roles=READERS | OWN,
            response=QuotaList,
            errors={409: "The tier of the customer is not configured here."},
        ),
        Endpoint(
            "GET",
            "/v1/directory/quotas",
            QuotaHandlers.fetch_counts,
            "Fetch the counts of quotas that are nearly used up. The answer waits until there are newer ones.",
            roles=EDGE,
            query=QuotaCountsQuery,
            response=QuotaCounts,
        ),
        Endpoint(
            "GET",
            "/v1/customers/{customer}/holdings/{meter}",
            QuotaHandlers.list_allocations,
            "List the items that a customer has allocated from a quota.",
            roles=SERVICE | READERS | OWN,
            query=AllocationsQuery,
            response=AllocationList,
            errors={409: "The tier of the customer is not configured here."},
        ),
        Endpoint(
            "PUT",
            "/v1/customers/{customer}/holdings/{meter}/{item}",
            QuotaHandlers.allocate_item,
            "Allocate an item, or renew it. The status is 201 if it is new, 409 if the quota is used up.",
            roles=SERVICE,
            response=AllocatedItem,
            status=201,
            may_be_200=True,
            request_media={JSON: AllocateItemRequest},
            errors={
                409: "The quota is used up, the customer is being deleted, or its tier is not configured here.",
                422: "The item has no valid name, or a field is invalid.",
            },
            example={"ttl": "12h"},
        ),
        Endpoint(
            "DELETE",
            "/v1/customers/{customer}/holdings/{meter}/{item}",
            QuotaHandlers.release_item,
            "Release an item, whether it was allocated or not.",
            roles=SERVICE,
            status=204,
            errors={409: "The tier of the customer is not configured here.", 422: "The item has no valid name."},
        ),
    ),
    parameters={
        "customer": CUSTOMER,
        "item": PathParameter("The item, by the service's own name for it."),
        "meter": PathParameter("The name of the meter, such as requests."),
    },
)
