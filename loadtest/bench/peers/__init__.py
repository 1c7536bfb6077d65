"""What is measured, in the order in which it takes its turns."""

from loadtest.bench.peers.edge import Edge, Hubbed
from loadtest.bench.peers.handmade import Handmade
from loadtest.bench.peers.haproxy import HAProxy
from loadtest.bench.peers.nginx import Lua, Plain
from loadtest.bench.peers.peer import Peer

PEERS: tuple[Peer, ...] = (Edge(), Hubbed(), Plain(), Lua(), HAProxy(), Handmade())
REFERENCE = Lua.name
"""The peer to which the others' CPU is set in proportion."""
