"""The table of endpoints: directory."""

from edgeproxy.collector.api.directory.handlers import DirectoryHandlers
from edgeproxy.collector.api.directory.models import DirectoryChanges, DirectoryFollowers, DirectoryQuery
from edgeproxy.collector.api.endpoint import BYTES, EDGE, READERS, Endpoint, Header
from edgeproxy.collector.api.group import Group, PathParameter
from edgeproxy.wire.directory_versions import FOLLOWER_FIELD

GROUP = Group(
    "directory",
    "The customer directory for edges.",
    DirectoryHandlers,
    (
        Endpoint(
            "GET",
            "/v1/directory",
            DirectoryHandlers.fetch_changes,
            "Fetch the signed lines of the directory after a version. The answer waits until there are some.",
            roles=EDGE,
            query=DirectoryQuery,
            response=DirectoryChanges,
            errors={404: "This collector publishes no directory."},
            headers={
                FOLLOWER_FIELD: Header(
                    {"type": "string", "maxLength": 73}, "A name for the edge in the list of followers."
                )
            },
        ),
        Endpoint(
            "GET",
            "/v1/directory/followers",
            DirectoryHandlers.list_followers,
            "List the edges that fetch the directory here, and the version that each of them has.",
            roles=READERS,
            response=DirectoryFollowers,
            errors={404: "This collector publishes no directory."},
        ),
        Endpoint(
            "GET",
            "/v1/directory/parts/{token}/{place}",
            DirectoryHandlers.fetch_part,
            "Fetch a part of a version of the directory.",
            roles=EDGE,
            response_media=(BYTES,),
        ),
    ),
    parameters={
        "place": PathParameter("The number of the part, from the directory's lines."),
        "token": PathParameter("The name of the token; in paths of the directory, the token of a version."),
    },
)
