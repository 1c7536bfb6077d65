"""The table of endpoints: flags."""

from edgeproxy.collector.accounts.models import FlagList, FlagRequest, FlagResponse
from edgeproxy.collector.api.endpoint import ADMIN, READERS, UPDATE, Endpoint
from edgeproxy.collector.api.field_types import ChangeQuery
from edgeproxy.collector.api.flags.handlers import FlagHandlers
from edgeproxy.collector.api.group import Group, PathParameter

GROUP = Group(
    "flags",
    "Feature flags and the customers that have them.",
    FlagHandlers,
    (
        Endpoint(
            "GET",
            "/v1/flags",
            FlagHandlers.list_flags,
            "List all flags.",
            roles=READERS,
            response=FlagList,
        ),
        Endpoint(
            "GET",
            "/v1/flags/{flag}",
            FlagHandlers.fetch_flag,
            "Fetch a flag.",
            roles=READERS,
            response=FlagResponse,
            response_headers=("ETag",),
        ),
        Endpoint(
            "PUT",
            "/v1/flags/{flag}",
            FlagHandlers.put_flag,
            "Set the customers that have a flag. If an edge's own files set the flag, those files apply there.",
            roles=ADMIN,
            query=ChangeQuery,
            body=FlagRequest,
            response=FlagResponse,
            change=UPDATE,
            example={"percent": 10, "tiers": ["standard"]},
        ),
    ),
    parameters={"flag": PathParameter("The name of the flag.")},
)
