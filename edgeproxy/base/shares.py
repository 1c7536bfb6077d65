"""Shares of a scarce good: no user and no group of users can use up the good. Pure; time is an argument.

The rule is called dynamic thresholds (A. K. Choudhury and E. L. Hahne, "Dynamic queue length thresholds for
shared-memory packet switches", IEEE/ACM Transactions on Networking 6 (2), 1998). A key may hold units up to a multiple
of the *free* units. So a single key gets a fixed fraction of the good, and several greedy keys get less each. A key
that holds no units gets one as long as any unit is free. Consider n keys with a share of a fifth each. If they claim
in turns, they leave 4/(4 + n) of the good free. If they claim one after the other, they leave (4/5)^n free.

A claim has several keys, for example an address and the network around it. Each key must have room.
"""

import math
from collections import Counter, deque
from ipaddress import IPv4Address, ip_network
from typing import NamedTuple

from edgeproxy.base.addresses import parse_ip

ALL = ""
"""The key that stands for all users. `find_exhausted` returns it if too few units are free."""

ROUNDING = 1e-9
"""The tolerance for rounding errors of products of fractions, in units."""


class Share(NamedTuple):
    """The share of one key."""

    key: str
    most: float
    """The largest fraction of the good for the key while other keys hold no units. It is above 0; 1 means no bound."""


Claim = tuple[Share, ...]
"""The shares that a unit counts against."""

V4_SHARES = ((32, 1 / 10), (24, 1 / 5), (16, 1 / 2))
V6_SHARES = ((64, 1 / 10), (48, 1 / 5), (32, 1 / 2))
"""The prefix lengths that have a share, each with its `Share.most`. A home has a /64 or a /56, a company a /48, and a
provider a /32. Rented IPv4 addresses lie in few /24s."""


def build_network_claim(address: str) -> Claim:
    """Return the shares of an IP address and of the networks around it. A text that is no address has one share."""
    parsed = parse_ip(address)
    if parsed is None:
        return (Share(f"network {address}", 1 / 5),)
    shares = V4_SHARES if isinstance(parsed, IPv4Address) else V6_SHARES
    return tuple(Share(f"network {ip_network((parsed, prefix), strict=False)}", most) for prefix, most in shares)


def compute_room(held: int, free: int, most: float) -> int:
    """Return the number of further units that a key may take.

    The key holds `held` units and has the share `most`; `free` units of the good are free.
    """
    room = math.ceil(most * free - (1 - most) * held - ROUNDING)
    return min(free, max(room, 0 if held else 1))


class Places:
    """Units that are taken and released, for example running attempts. The units in use bound the memory."""

    def __init__(self, amount: int) -> None:
        self.amount = amount
        self.in_use = 0
        self._held: Counter[str] = Counter()

    def count(self, key: str) -> int:
        """Return the number of units that a key holds."""
        return self._held[key]

    def find_exhausted(self, claim: Claim, elsewhere: int = 0, units: int = 1) -> str | None:
        """Return the key whose share is used up, ALL if too few units are free, or None if the units may be taken.

        `elsewhere` is the number of units in use that this object does not count.
        """
        free = self.amount - self.in_use - elsewhere
        if free < units:
            return ALL
        for key, most in claim:
            if compute_room(self._held[key], free, most) < units:
                return key
        return None

    def take(self, claim: Claim, units: int = 1) -> None:
        """Take units after `find_exhausted` has allowed them.

        A request may exceed its shares if its number of units is not known in advance.
        """
        self.in_use += units
        for key, _ in claim:
            self._held[key] += units

    def release(self, claim: Claim, units: int = 1) -> None:
        """Release units."""
        self.in_use -= units
        for key, _ in claim:
            self._held[key] -= units
            if not self._held[key]:
                del self._held[key]


class Exhausted(NamedTuple):
    """The reason why no unit was taken."""

    key: str
    """The key whose share is used up, or ALL."""
    seconds: float
    """Seconds until that key releases its next unit."""


class Allowance:
    """Units that are released a fixed time after they were taken, for example mails per hour."""

    def __init__(self, amount: int, seconds: float) -> None:
        self.seconds = seconds
        self._places = Places(amount)
        self._taken: deque[tuple[float, Claim]] = deque()

    @property
    def amount(self) -> int:
        """The number of units per `seconds`."""
        return self._places.amount

    def count_in_use(self, now: float) -> int:
        """Return the number of units that were taken within the last `seconds`."""
        while self._taken and self._taken[0][0] <= now - self.seconds:
            self._places.release(self._taken.popleft()[1])
        return self._places.in_use

    def take(self, claim: Claim, now: float, elsewhere: int = 0) -> Exhausted | None:
        """Take a unit at the time `now` and return None, or return the reason why no unit was taken.

        `now` must never decrease. `Places.find_exhausted` explains `elsewhere`.
        """
        self.count_in_use(now)
        key = self._places.find_exhausted(claim, elsewhere)
        if key is None:
            self._places.take(claim)
            self._taken.append((now, claim))
            return None
        own = (at for at, taken in self._taken if key == ALL or any(key == share.key for share in taken))
        return Exhausted(key, next(own, now) + self.seconds - now)
