"""Tunnels: the handshake of a WebSocket, and its two ends."""

from tests.support.transcript import Edge, get, head
from tests.support.wire import Wire

UPGRADE = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZQ==",
    "Sec-WebSocket-Version: 13",
)


SWITCH = head(
    "HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Accept: s3pPLMBi"
)


async def tunnel(edge: Edge, path: str = "/public/ws", *fields: str) -> tuple[Wire, Wire]:
    """The two ends of a tunnel."""
    client, upstream = await edge.opens(get(path, *UPGRADE, *fields))
    await upstream.sends(SWITCH)
    assert (await client.gets_head()).status == 101
    return client, upstream


async def ends(client: Wire, upstream: Wire) -> None:
    """The client leaves, and the upstream with it."""
    client.closes()
    await upstream.gets_eof()
    upstream.closes()
