"""Networks that may connect: one look-up per address for any number of networks."""

import ipaddress
from bisect import bisect_right
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from edgeproxy.base.addresses import parse_ip
from edgeproxy.edge import problem_codes
from edgeproxy.edge.errors import RejectedError

if TYPE_CHECKING:
    from edgeproxy.config.networks import Networks as Settings

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
IP = ipaddress.IPv4Address | ipaddress.IPv6Address

OF_KEY: Final = "This API key is not for use from this address"
OF_PLACE: Final = "This address may not come here"
"""The details of a refusal: by the networks of a customer, and by the networks of the edge or of a route."""


class NetworkFilter:
    """The allowed addresses, as boundaries in ascending order between allowed and denied ones."""

    def __init__(self, settings: "Settings") -> None:
        self._changes = {version: compute_boundaries(settings.allow, settings.deny, version) for version in (4, 6)}

    def admits(self, address: IP | None) -> bool:
        """Return whether an address is allowed. None, an address that could not be parsed, is not."""
        return address is not None and bool(bisect_right(self._changes[address.version], int(address)) & 1)


def check_address(networks: NetworkFilter | None, address: str, detail: str) -> None:
    """Raise RejectedError with this detail if networks do not admit an address. None admits all."""
    if networks is not None and not networks.admits(parse_ip(address)):
        raise create_address_error(detail)


def create_address_error(detail: str) -> RejectedError:
    """Return the refusal of an address."""
    return RejectedError(403, detail, close=False, code=problem_codes.ADDRESS_DENIED)


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
