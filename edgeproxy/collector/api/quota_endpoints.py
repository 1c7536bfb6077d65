"""The endpoints of quotas and holdings, a row each as in endpoints.py."""

from typing import Any

from edgeproxy.collector.api.endpoint import EDGE, JSON, OWN, READERS, SERVICE, Endpoint
from edgeproxy.collector.api.handlers.quotas import QuotaHandlers
from edgeproxy.collector.api.quota_models import (
    AllocationList,
    AllocationResult,
    HoldingsQuery,
    QuotaCounts,
    QuotaList,
    QuotaNewsQuery,
)

HOLDINGS = "/v1/customers/{customer}/holdings/{meter}"


def quota_endpoints(quotas: QuotaHandlers) -> tuple[Endpoint[Any, Any], ...]:
    """Return the rows."""
    return (
        Endpoint(
            *("GET", "/v1/customers/{customer}/quotas", READERS | OWN, quotas.quotas),
            "List the quotas of a customer with usage and projection.",
            answers=QuotaList,
            refuses=(409,),
        ),
        Endpoint(
            *("GET", "/v1/directory/quotas", EDGE, quotas.news),
            "Fetch the counts of quotas that are nearly used up; the answer waits until there are newer ones.",
            query=QuotaNewsQuery,
            answers=QuotaCounts,
        ),
        Endpoint(
            *(
                "GET",
                HOLDINGS,
                READERS | SERVICE | OWN,
                quotas.page,
                "List the items that a customer has allocated of a quota.",
            ),
            query=HoldingsQuery,
            answers=AllocationList,
            refuses=(409,),
        ),
        Endpoint(
            *("PUT", f"{HOLDINGS}/{{item}}", SERVICE, quotas.take),
            "Allocate an item, or renew it: 201 where it is new, 409 where the quota is used up.",
            media=(JSON,),
            answers=AllocationResult,
            status=201,
            again=True,
            refuses=(409, 422),
        ),
        Endpoint(
            *("DELETE", f"{HOLDINGS}/{{item}}", SERVICE, quotas.give_back),
            "Release an item, whether it was allocated or not.",
            status=204,
            refuses=(409, 422),
        ),
    )
