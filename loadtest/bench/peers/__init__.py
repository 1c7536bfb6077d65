"""What is measured, in the order in which it takes its turns."""

from loadtest.bench.peers.edge import Edge, Hubbed
from loadtest.bench.peers.envoy import Envoy
from loadtest.bench.peers.handmade import Handmade
from loadtest.bench.peers.haproxy import HAProxy
from loadtest.bench.peers.nginx import Lua, Plain
from loadtest.bench.peers.peer import Peer

PEERS: tuple[Peer, ...] = (Edge(), Hubbed(), Plain(), Lua(), HAProxy(), Handmade())
HTTP2_PEERS: tuple[Peer, ...] = (PEERS[0], PEERS[2], PEERS[4], Envoy())
"""Those of which HTTP/2 is measured: edgeproxy, nginx, HAProxy, Envoy."""
REFERENCE = Lua.name
"""The peer to which the others' CPU is set in proportion."""
