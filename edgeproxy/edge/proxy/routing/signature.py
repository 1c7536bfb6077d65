"""X-Edge-Signature, which proves to an upstream that the edge sent and stamped a request."""

import hashlib
import hmac

from edgeproxy.base.clock import EPOCH
from edgeproxy.edge.http1 import stamps
from edgeproxy.edge.proxy.routing.binding import RouteBinding

VERSION_BYTES = len(b" HTTP/1.1\r\n")

NO_BODY = b"-"
"""The value in place of a hash if some of the body is still to come when the head goes out."""


class Signature:
    """Signs requests: `t=UNIX,v1=HEX`, an HMAC-SHA-256 over `t.request-id.customer.tier.region`.

    With `whole` also `,v2=HEX,body=HASH`, over these and the method, the target and the SHA-256 of the body in hex,
    each on a line of its own that ends with LF. So the signature of one request is useless for another.
    """

    def __init__(self, secret: str, region: str, *, whole: bool = False) -> None:
        self._keyed = hmac.new(secret.encode(), digestmod=hashlib.sha256)
        self._region = region
        self._whole = whole
        self._opening = stamps.format_opening(b"X-Edge-Signature")

    def __call__(self, request_id: bytes, binding: RouteBinding, now: float, first: bytes, body: bytes | None) -> bytes:
        """Return the line for a request at this edge time, with its CRLF.

        `first`: the request line for the upstream. `body`: None if it is incomplete.
        """
        unix = int(now + EPOCH)
        who = f"{binding.customer}.{binding.tier}.{self._region}"
        signed = self._sign(b"%d.%b.%b" % (unix, request_id, who.encode()))
        if not self._whole:
            return b"%bt=%d,v1=%b\r\n" % (self._opening, unix, signed)
        hashed = NO_BODY if body is None else hashlib.sha256(body).hexdigest().encode()
        method, _, target = first[:-VERSION_BYTES].partition(b" ")
        customer, tier, region = (each.encode() for each in (binding.customer, binding.tier, self._region))
        parts = (b"%d" % unix, request_id, customer, tier, region, method, target, hashed)
        whole = self._sign(b"".join([part + b"\n" for part in parts]))
        return b"%bt=%d,v1=%b,v2=%b,body=%b\r\n" % (self._opening, unix, signed, whole, hashed)

    def _sign(self, content: bytes) -> bytes:
        signed = self._keyed.copy()
        signed.update(content)
        return signed.hexdigest().encode()
