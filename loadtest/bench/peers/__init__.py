"""The measured peers, in the order of their turns."""

from loadtest.bench.peers.edge import Edge, Hubbed
from loadtest.bench.peers.envoy import Envoy
from loadtest.bench.peers.handmade import Handmade
from loadtest.bench.peers.haproxy import HAProxy
from loadtest.bench.peers.nginx import Lua, Plain
from loadtest.bench.peers.peer import Peer

PEERS: tuple[Peer, ...] = (Edge(), Hubbed(), Plain(), Lua(), HAProxy(), Handmade())
HTTP2_PEERS: tuple[Peer, ...] = (PEERS[0], PEERS[2], PEERS[4], Envoy())
"""The peers with HTTP/2 measurements: edgeproxy, nginx, HAProxy, Envoy."""
REFERENCE = Lua.name
"""The reference for the relative CPU of the others."""
