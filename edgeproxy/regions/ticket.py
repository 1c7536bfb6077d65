"""Tickets: what a client must have been given lately, in its network, for its report to count; and that only once."""

import hashlib
import hmac
from collections import OrderedDict

TICKET_SECONDS = 120
"""Seconds for which a ticket is good."""
USED_MAX = 50_000
"""Tickets remembered as used; beyond them reports are turned away until the oldest are no longer good."""


class Refused(Exception):
    """A ticket is not good; the text says why."""


class Tickets:
    """Gives tickets and takes them back. A ticket is `EXPIRES.NONCE.MAC`, and good in the network that it was for."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._used: OrderedDict[str, int] = OrderedDict()

    def give(self, network: str, nonce: str, now: float) -> str:
        """Return a ticket for a client in this network; `nonce` is 16 hex digits at random."""
        expires = int(now) + TICKET_SECONDS
        return f"{expires}.{nonce}.{self._mac(network, expires, nonce)}"

    def take(self, ticket: str, network: str, now: float) -> None:
        """Take a ticket back from a client in this network; raises Refused."""
        parts = ticket.split(".")
        if len(parts) != 3 or not (parts[0].isascii() and parts[0].isdecimal() and len(parts[0]) <= 12):
            raise Refused("the ticket is none of ours")
        expires, nonce = int(parts[0]), parts[1]
        if not hmac.compare_digest(self._mac(network, expires, nonce).encode(), parts[2].encode()):
            raise Refused("the ticket is none of ours, or another network's")
        if expires < now:
            raise Refused("the ticket is too old")
        while self._used and next(iter(self._used.values())) < now:
            self._used.popitem(last=False)
        if nonce in self._used:
            raise Refused("the ticket was used")
        if len(self._used) >= USED_MAX:
            raise Refused("too many reports come now")
        self._used[nonce] = expires

    def _mac(self, network: str, expires: int, nonce: str) -> str:
        told = f"edgeproxy-beacon|{network}|{expires}|{nonce}"
        return hmac.new(self._secret, told.encode(), hashlib.sha256).hexdigest()[:32]
