"""The table of endpoints: directory."""

from edgeproxy.collector.api.directory.handlers import DirectoryHandlers
from edgeproxy.collector.api.directory.models import DirectoryChanges, DirectoryQuery
from edgeproxy.collector.api.endpoint import BYTES, EDGE, Endpoint
from edgeproxy.collector.api.group import Group, PathParameter

GROUP = Group(
    "directory",
    "The customer directory, as edges fetch it.",
    DirectoryHandlers,
    (
        Endpoint(
            "GET",
            "/v1/directory",
            DirectoryHandlers.fetch_changes,
            "Fetch the signed lines of the directory after a version; the answer waits until there are some.",
            roles=EDGE,
            query=DirectoryQuery,
            response=DirectoryChanges,
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
        "place": PathParameter("The number of the part, as the directory's lines name it."),
        "token": PathParameter("The name of the token; in paths of the directory, the token of a version."),
    },
)
