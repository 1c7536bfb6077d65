"""Tickets of the beacon: a report counts with a recent ticket of the client's network, once."""

import hashlib
import hmac
from collections import OrderedDict

TICKET_SECONDS = 120
"""Seconds for which a ticket is valid."""
USED_MAX = 50_000
"""Used tickets that are remembered; beyond them reports are rejected until the oldest have expired."""


class InvalidTicketError(Exception):
    """A ticket is not valid; the text says why."""


class Tickets:
    """Issues and redeems tickets. A ticket is `EXPIRES.NONCE.MAC`, and valid in one network."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._used: OrderedDict[str, int] = OrderedDict()

    def issue_ticket(self, network: str, nonce: str, now: float) -> str:
        """Issue a ticket for a client in this network; `nonce` is 16 random hex digits."""
        expires = int(now) + TICKET_SECONDS
        return f"{expires}.{nonce}.{self._compute_mac(network, expires, nonce)}"

    def redeem_ticket(self, ticket: str, network: str, now: float) -> None:
        """Redeem a ticket of a client in this network; raises InvalidTicketError."""
        parts = ticket.split(".")
        if len(parts) != 3 or not (parts[0].isascii() and parts[0].isdecimal() and len(parts[0]) <= 12):
            raise InvalidTicketError("the ticket is none of ours")
        expires, nonce = int(parts[0]), parts[1]
        if not hmac.compare_digest(self._compute_mac(network, expires, nonce).encode(), parts[2].encode()):
            raise InvalidTicketError("the ticket is none of ours, or another network's")
        if expires < now:
            raise InvalidTicketError("the ticket is too old")
        while self._used and next(iter(self._used.values())) < now:
            self._used.popitem(last=False)
        if nonce in self._used:
            raise InvalidTicketError("the ticket was used")
        if len(self._used) >= USED_MAX:
            raise InvalidTicketError("too many reports come now")
        self._used[nonce] = expires

    def _compute_mac(self, network: str, expires: int, nonce: str) -> str:
        message = f"edgeproxy-beacon|{network}|{expires}|{nonce}"
        return hmac.new(self._secret, message.encode(), hashlib.sha256).hexdigest()[:32]
