"""The table of endpoints: service."""

from edgeproxy.collector.api.endpoint import ANYONE, API_USERS, EVERYWHERE, HTML, READERS, TEXT, Endpoint
from edgeproxy.collector.api.group import Group
from edgeproxy.collector.api.service.handlers import ServiceHandlers
from edgeproxy.collector.api.service.models import ApiDescription, JobList, Ready

GROUP = Group(
    "service",
    "The collector itself: health, metrics, jobs and this description.",
    ServiceHandlers,
    (
        Endpoint(
            "GET",
            "/healthz",
            ServiceHandlers.check_health,
            "Check that the collector is alive.",
            roles=ANYONE,
            response_media=(TEXT,),
            listener_groups=EVERYWHERE,
        ),
        Endpoint(
            "GET",
            "/readyz",
            ServiceHandlers.check_readiness,
            "Check that the collector accepts batches now.",
            roles=ANYONE,
            response=Ready,
            listener_groups=EVERYWHERE,
        ),
        Endpoint(
            "GET",
            "/metrics",
            ServiceHandlers.fetch_metrics,
            "Fetch the metrics, for Prometheus.",
            roles=ANYONE,
            response_media=(TEXT,),
            errors={401: "The token is missing or unknown."},
            listener_groups=frozenset({"metrics"}),
        ),
        Endpoint(
            "GET",
            "/v1/jobs",
            ServiceHandlers.list_jobs,
            "List the periodic jobs of the answering collector, by name, with the last run of each.",
            roles=READERS,
            response=JobList,
        ),
        Endpoint(
            "GET",
            "/v1/openapi.json",
            ServiceHandlers.fetch_description,
            "Fetch the OpenAPI description of this listener's endpoints.",
            roles=ANYONE,
            response=ApiDescription,
            listener_groups=API_USERS,
        ),
        Endpoint(
            "GET",
            "/docs",
            ServiceHandlers.fetch_reference,
            "Show a page about this listener's endpoints.",
            roles=ANYONE,
            response_media=(HTML,),
            listener_groups=API_USERS,
        ),
    ),
)
