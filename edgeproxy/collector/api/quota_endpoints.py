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
    """List them."""
    return (
        Endpoint(
            *("GET", "/v1/customers/{customer}/quotas", READERS | OWN, quotas.quotas),
            "What is used of each quota of a customer, and will be by the end of its period.",
            answers=QuotaList,
            refuses=(409,),
        ),
        Endpoint(
            *("GET", "/v1/directory/quotas", EDGE, quotas.news),
            "What the ledger has counted of quotas that are nearly used up; waits until there is more.",
            query=QuotaNewsQuery,
            answers=QuotaCounts,
        ),
        Endpoint(
            *("GET", HOLDINGS, READERS | SERVICE | OWN, quotas.page, "The places that a customer has taken."),
            query=HoldingsQuery,
            answers=AllocationList,
            refuses=(409,),
        ),
        Endpoint(
            *("PUT", f"{HOLDINGS}/{{item}}", SERVICE, quotas.take),
            "Take a place, or keep it: 201 where it was not taken before, 409 where there is none left.",
            media=(JSON,),
            answers=AllocationResult,
            status=201,
            again=True,
            refuses=(409, 422),
        ),
        Endpoint(
            *("DELETE", f"{HOLDINGS}/{{item}}", SERVICE, quotas.give_back),
            "Give a place back, whether it was taken or not.",
            status=204,
            refuses=(409, 422),
        ),
    )
