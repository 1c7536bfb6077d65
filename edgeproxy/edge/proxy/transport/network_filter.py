"""Networks that may connect: one look-up per address for any number of networks."""

import ipaddress
from bisect import bisect_right
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgeproxy.config.networks import Networks as Settings

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
IP = ipaddress.IPv4Address | ipaddress.IPv6Address


class NetworkFilter:
    """The allowed addresses, as boundaries in ascending order between allowed and denied ones."""

    def __init__(self, settings: "Settings") -> None:
        self._changes = {version: compute_boundaries(settings.allow, settings.deny, version) for version in (4, 6)}

    def admits(self, address: IP | None) -> bool:
        """Return whether an address is allowed. None, an address that could not be parsed, is not."""
        return address is not None and bool(bisect_right(self._changes[address.version], int(address)) & 1)


def compute_boundaries(allow: Iterable[Network] | None, deny: Iterable[Network], version: int) -> list[int]:
    """Return the beginnings and ends of the allowed ranges, in turn."""
    steps: dict[int, int] = {}
    if allow is None:
        steps[0] = 1
    else:
        _add_weights(steps, allow, version, 1)
    # More than all networks that allow an address can add up to.
    _add_weights(steps, deny, version, -(1 << 40))
    boundaries: list[int] = []
    depth, open_ = 0, False
    for at in sorted(steps):
        depth += steps[at]
        if (depth > 0) is not open_:
            open_ = not open_
            boundaries.append(at)
    return boundaries


def _add_weights(steps: dict[int, int], networks: Iterable[Network], version: int, weight: int) -> None:
    for network in networks:
        if network.version == version:
            begin = int(network.network_address)
            end = begin + network.num_addresses
            steps[begin] = steps.get(begin, 0) + weight
            steps[end] = steps.get(end, 0) - weight
