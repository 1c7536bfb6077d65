"""The table of endpoints: regions."""

from edgeproxy.collector.api.endpoint import BEACON, EDGE, READERS, Endpoint
from edgeproxy.collector.api.group import Group
from edgeproxy.collector.api.regions.handlers import RegionHandlers
from edgeproxy.collector.api.regions.models import BestRegion, BestRegionQuery, RegionReports, RegionReportsResult

GROUP = Group(
    "regions",
    "The best region for a client.",
    RegionHandlers,
    (
        Endpoint(
            "POST",
            "/v1/regions/reports",
            RegionHandlers.ingest_reports,
            "Ingest the round trips that clients have measured to each region.",
            roles=BEACON,
            body=RegionReports,
            response=RegionReportsResult,
            errors={404: "No regions are configured."},
            example={
                "reports": [{"network": "192.0.2.0/24", "voter": "a1", "measured": {"eu-west": 12.5, "us-east": 90.0}}]
            },
        ),
        Endpoint(
            "GET",
            "/v1/regions/best",
            RegionHandlers.find_best_region,
            "Find the best region for a client.",
            roles=EDGE | BEACON | READERS,
            query=BestRegionQuery,
            response=BestRegion,
            errors={404: "No regions are configured, or the customer does not exist."},
        ),
    ),
)
