"""The table of endpoints: traffic."""

from edgeproxy.collector.api.edges.endpoints import BATCH_HEADERS
from edgeproxy.collector.api.endpoint import EDGE, READERS, Endpoint
from edgeproxy.collector.api.group import CUSTOMER, Group
from edgeproxy.collector.api.traffic.handlers import TrafficHandlers
from edgeproxy.collector.api.traffic.models import (
    EXAMPLE,
    LIMIT_USAGE_EXAMPLE,
    CustomerErrorsQuery,
    CustomerErrorsResponse,
    LimitUsageBody,
    LimitUsageReceipt,
    TrafficQueryParameters,
    TrafficReceipt,
    TrafficReportBody,
    TrafficResponse,
)

GROUP = Group(
    "traffic",
    "Requests, refusals, errors and latencies, as edges report them every minute.",
    TrafficHandlers,
    (
        Endpoint(
            "POST",
            "/v1/traffic",
            TrafficHandlers.ingest_report,
            "Ingest the report of an edge about one minute. A report for an already reported minute changes nothing.",
            roles=EDGE,
            body=TrafficReportBody,
            response=TrafficReceipt,
            headers={"Edge-Id": BATCH_HEADERS["Edge-Id"]},
            errors={
                409: "The edge has shipped no batch yet.",
                422: "A field is invalid, or the minute is too old or in the future.",
            },
            example=EXAMPLE,
        ),
        Endpoint(
            "POST",
            "/v1/limit-usage",
            TrafficHandlers.ingest_limit_usage,
            "Ingest customers' current use of their limits at an edge. The answer names the customers to report next.",
            roles=EDGE,
            body=LimitUsageBody,
            response=LimitUsageReceipt,
            headers={"Edge-Id": BATCH_HEADERS["Edge-Id"]},
            errors={409: "The edge has shipped no batch yet."},
            example=LIMIT_USAGE_EXAMPLE,
        ),
        Endpoint(
            "GET",
            "/v1/traffic",
            TrafficHandlers.report_traffic,
            "Report the traffic of a time in steps, in total and by region, edge or route.",
            roles=READERS,
            query=TrafficQueryParameters,
            response=TrafficResponse,
        ),
        Endpoint(
            "GET",
            "/v1/customers/{customer}/errors",
            TrafficHandlers.report_errors,
            "Report the recent errors of a customer by status, origin of the answer, route and region.",
            roles=READERS,
            query=CustomerErrorsQuery,
            response=CustomerErrorsResponse,
        ),
    ),
    parameters={"customer": CUSTOMER},
)
