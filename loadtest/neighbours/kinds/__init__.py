"""All kinds of bad neighbours, in the order in which they are measured."""

from loadtest.neighbours.kinds import http1, http2
from loadtest.neighbours.neighbour import Neighbour

KINDS: dict[str, Neighbour] = {row.name: row for row in (*http1.ROWS, *http2.ROWS)}
