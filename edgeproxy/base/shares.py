"""Shares of a scarce good: no user, and no group of users, takes what all need. Pure; time is an argument.

The rule is that of dynamic thresholds (A. K. Choudhury and E. L. Hahne, "Dynamic queue length thresholds for
shared-memory packet switches", IEEE/ACM Transactions on Networking 6 (2), 1998): a key may hold units up to a multiple
of the units that are *free*. A single key gets a fixed fraction of the good, several greedy keys get less each, and a
key that holds nothing gets a unit as long as any is free. Of keys with a fifth at most, n that claim in turns leave
4/(4 + n) of the good free; n that come one after the other leave (4/5)^n. A claim has several keys, such as an address
and the network around it, and each of them must have room.
"""

import math
from collections import Counter, deque
from ipaddress import IPv4Address, ip_network
from typing import NamedTuple

from edgeproxy.base.addresses import parse_ip

ALL = ""
"""The key that stands for all users: no unit is free."""

ROUNDING = 1e-9
"""The error of products of fractions, in units."""


class Share(NamedTuple):
    """The share of one key."""

    key: str
    most: float
    """The fraction of the good that the key gets at most, when nobody else holds any: above 0, 1 is no bound."""


Claim = tuple[Share, ...]
"""The shares that a unit is taken from."""

V4_SHARES = ((32, 1 / 10), (24, 1 / 5), (16, 1 / 2))
V6_SHARES = ((64, 1 / 10), (48, 1 / 5), (32, 1 / 2))
"""The lengths of prefixes that have a share, with their `Share.most`. A home has a /64 or a /56, a company a /48, a
provider a /32; rented IPv4 addresses lie in few /24s."""


def build_network_claim(address: str) -> Claim:
    """Return the shares of an IP address and of the networks around it; a text that is no address has one share."""
    parsed = parse_ip(address)
    if parsed is None:
        return (Share(f"network {address}", 1 / 5),)
    shares = V4_SHARES if isinstance(parsed, IPv4Address) else V6_SHARES
    return tuple(Share(f"network {ip_network((parsed, prefix), strict=False)}", most) for prefix, most in shares)


def compute_room(held: int, free: int, most: float) -> int:
    """Return how many further units a key may take that holds `held`, has the share `most`, and finds `free` units."""
    room = math.ceil(most * free - (1 - most) * held - ROUNDING)
    return min(free, max(room, 0 if held else 1))


class Places:
    """Units that are taken and given back, such as attempts under way. Memory is bounded by the units in use."""

    def __init__(self, amount: int) -> None:
        self.amount = amount
        self.in_use = 0
        self._held: Counter[str] = Counter()

    def count(self, key: str) -> int:
        """Return the units that a key holds."""
        return self._held[key]

    def find_exhausted(self, claim: Claim, elsewhere: int = 0, units: int = 1) -> str | None:
        """Return the key whose share is used up, ALL where too few units are free, or None where they may be taken.

        `elsewhere` is the number of units that others hold who are not counted here.
        """
        free = self.amount - self.in_use - elsewhere
        if free < units:
            return ALL
        for key, most in claim:
            if compute_room(self._held[key], free, most) < units:
                return key
        return None

    def take(self, claim: Claim, units: int = 1) -> None:
        """Take units, which `find_exhausted` has allowed; a request whose units are not known before may go beyond."""
        self.in_use += units
        for key, _ in claim:
            self._held[key] += units

    def release(self, claim: Claim, units: int = 1) -> None:
        """Give units back."""
        self.in_use -= units
        for key, _ in claim:
            self._held[key] -= units
            if not self._held[key]:
                del self._held[key]


class Exhausted(NamedTuple):
    """The reason why no unit is taken."""

    key: str
    """The key whose share is used up, or ALL."""
    seconds: float
    """The seconds until that key gives its next unit back."""


class Allowance:
    """Units that come back some seconds after they were taken, such as mails in an hour."""

    def __init__(self, amount: int, seconds: float) -> None:
        self.seconds = seconds
        self._places = Places(amount)
        self._taken: deque[tuple[float, Claim]] = deque()

    @property
    def amount(self) -> int:
        """The units in `seconds`."""
        return self._places.amount

    def count_in_use(self, now: float) -> int:
        """Return the units that were taken within the last `seconds`."""
        while self._taken and self._taken[0][0] <= now - self.seconds:
            self._places.release(self._taken.popleft()[1])
        return self._places.in_use

    def take(self, claim: Claim, now: float, elsewhere: int = 0) -> Exhausted | None:
        """Take a unit at this second, or return why not; for `elsewhere` see Places. Times must not go back."""
        self.count_in_use(now)
        key = self._places.find_exhausted(claim, elsewhere)
        if key is None:
            self._places.take(claim)
            self._taken.append((now, claim))
            return None
        own = (at for at, taken in self._taken if key == ALL or any(key == share.key for share in taken))
        return Exhausted(key, next(own, now) + self.seconds - now)
