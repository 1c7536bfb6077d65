"""The state of a limit as the hub's functions store it (edgeproxy/hub/scripts/preamble.lua)."""

import msgspec

HOST_BYTES = 12
"""Of a host among the heartbeats (scripts/heartbeat.lua)."""


def parse_state(packed: bytes | None) -> dict[str, float]:
    """Return the numbers of a state by name, or an empty dictionary if there is no state."""
    return msgspec.msgpack.decode(packed, type=dict[str, float]) if packed else {}


def sum_cells(packed: bytes | None) -> float:
    """Return what all hosts together have in the cells of a rate's totals."""
    return sum(number for name, number in parse_state(packed).items() if name.isdigit())
