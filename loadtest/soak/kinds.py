"""The kinds of traffic. Each is a customer with its own route, so that its sums are separate."""

from dataclasses import dataclass

LIMITED, COMER, DETOUR, SECURE = "limited", "comer", "detour", "secure"
API, BULK = "api", "bulk"
"""The upstreams: endpoints of the first come and go by reload, the second is never changed."""


@dataclass(frozen=True)
class Kind:
    """One kind of traffic. Its customer, its route and its first path segment have its name."""

    name: str
    what: str
    clients: int
    pause: tuple[float, float]
    """Seconds between two requests of a client: from, to."""
    upstream: str = API
    repeatable: bool = True
    """The edge may send it twice: no body, and an idempotent method (RFC 9110 section 9.2.2)."""
    streams: bool = False
    """Its answer takes long to end, so a fault may cut it after it has begun."""
    refusal: int = 0
    """The status of its expected refusals, which depend on reloads; 0: none."""


KINDS = {
    kind.name: kind
    for kind in (
        Kind("keep", "GETs over kept connections", 16, (0.02, 0.12)),
        Kind("once", "GETs, a connection each", 6, (0.05, 0.15)),
        Kind("sized", "POSTs of 1 to 3 MB with a length", 2, (0.2, 0.6), BULK, repeatable=False),
        Kind("chunked", "POSTs of 1 to 3 MB in chunks", 2, (0.2, 0.6), BULK, repeatable=False),
        Kind("slow", "POSTs that take 1 to 3 s to send", 3, (0.1, 0.5), BULK, repeatable=False),
        Kind("events", "server-sent events for 1 to 4 s", 4, (0.1, 0.5), BULK, streams=True),
        Kind("socket", "WebSockets with echo for 1 to 5 s", 4, (0.1, 0.5), BULK, streams=True),
        Kind("download", "GETs of 1 to 4 MB, half of them in chunks", 2, (0.2, 0.6), streams=True),
        Kind(SECURE, "GETs over HTTPS, ten to a connection", 6, (0.05, 0.25)),
        Kind(LIMITED, "GETs of a customer over the limit", 2, (0.02, 0.1), refusal=429),
        Kind(COMER, "GETs of a customer that comes and goes", 1, (0.1, 0.3), refusal=401),
        Kind(DETOUR, "GETs on a route that comes and goes", 1, (0.1, 0.3), refusal=404),
    )
}
