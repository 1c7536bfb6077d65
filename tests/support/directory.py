"""The directory as a follower of the hub knows it."""

import json

from edgeproxy.wire import directory_versions


async def told(
    ask: directory_versions.CallHub, token: str | None = None, known: dict[str, str] | None = None
) -> dict[str, str]:
    """Return the tier of each customer for a follower that knows `known` as of the version `token`."""
    found = dict(known or {})
    versions = await directory_versions.fetch_versions(ask)
    tokens = [version.token for version in versions]
    for version in versions[tokens.index(token) + 1 :] if token in tokens else versions:
        if version.whole:
            found.clear()
        async for part in directory_versions.fetch_parts(directory_versions.create_part_fetcher(ask), version):
            for line in part:
                body = json.loads(line)
                found.pop(body["name"], None)
                if "customer" in body:
                    found[body["name"]] = body["customer"]["tier"]
    return found
