"""What somebody who follows the directory has been told of it."""

import json

from edgeproxy.wire import directory_versions
from edgeproxy.wire.directory_versions import list_versions_after


async def told(
    ask: directory_versions.CallHub, token: str | None = None, known: dict[str, str] | None = None
) -> dict[str, str]:
    """The tier of each customer, for one who knows these as of this version."""
    found = dict(known or {})
    for version in list_versions_after(await directory_versions.fetch_versions(ask), token):
        if version.whole:
            found.clear()
        async for part in directory_versions.fetch_parts(directory_versions.create_part_fetcher(ask), version):
            for line in part:
                said = json.loads(line)
                found.pop(said["name"], None)
                if "customer" in said:
                    found[said["name"]] = said["customer"]["tier"]
    return found
