"""All kinds of bad neighbours, in the order of measurement."""

from loadtest.neighbours.kinds import h2c, http1, http2, surroundings, tls, websocket
from loadtest.neighbours.neighbour import Neighbour

KINDS: dict[str, Neighbour] = {
    row.name: row for module in (http1, websocket, http2, h2c, tls, surroundings) for row in module.ROWS
}
FEW = ("pipelined-404", "chunks-up", "chunks-down", "h2-data-1-byte-up", "h2-404", "h2c-frames-down")
"""The short form: one kind for each part of the edge that a client can keep busy with small pieces."""
