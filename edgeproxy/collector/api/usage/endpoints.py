"""The table of endpoints: usage."""

from edgeproxy.collector.api.endpoint import CSV, MONEY_READERS, OWN, READERS, Endpoint
from edgeproxy.collector.api.group import CUSTOMER, Group
from edgeproxy.collector.api.request_limits import RequestRate
from edgeproxy.collector.api.usage.handlers import UsageHandlers
from edgeproxy.collector.api.usage.models import (
    CustomerLimits,
    CustomerLimitsQuery,
    RefusalReportResponse,
    RefusalsQuery,
    Usage,
    UsageQuery,
    UsageValue,
    UsageValueQuery,
)

GROUP = Group(
    "usage",
    "Usage that the ledger has counted, and the requests that limits refused.",
    UsageHandlers,
    (
        Endpoint(
            "GET",
            "/v1/usage",
            UsageHandlers.report_usage,
            "Report usage, grouped by any of its dimensions.",
            roles=READERS | OWN,
            query=UsageQuery,
            response=Usage,
            response_media=(CSV,),
            errors={429: "The maximum number of exports is under way."},
            own="the handler asks for the customer's usage alone",
        ),
        Endpoint(
            "GET",
            "/v1/usage/value",
            UsageHandlers.report_value,
            "Compute the cost of a meter's usage under the plans that the customer had.",
            roles=MONEY_READERS | OWN,
            query=UsageValueQuery,
            response=UsageValue,
            errors={
                404: "Billing is not configured, or the customer or its subscription does not exist.",
                422: "The query names no customer, or it names a meter whose usage cannot be added up.",
            },
            rate=RequestRate(100, "customer"),
            own="the handler asks for the customer's usage and plan alone",
        ),
        Endpoint(
            "GET",
            "/v1/refusals",
            UsageHandlers.report_refusals,
            "Report the customers and limits with the most refusals. The answer is 429 until they are computed.",
            roles=READERS,
            query=RefusalsQuery,
            response=RefusalReportResponse,
            errors={429: "The report is being computed. Retry-After says when to try again."},
        ),
        Endpoint(
            "GET",
            "/v1/customers/{customer}/limits",
            UsageHandlers.report_limits,
            "Report the limits of a customer, their use, and their refusals by route and region.",
            roles=READERS | OWN,
            query=CustomerLimitsQuery,
            response=CustomerLimits,
            errors={409: "The tier of the customer is not configured here."},
        ),
    ),
    parameters={"customer": CUSTOMER},
)
