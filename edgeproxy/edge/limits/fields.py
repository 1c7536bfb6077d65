"""RateLimit fields of answers: draft-ietf-httpapi-ratelimit-headers-10, and the older X-RateLimit fields."""

import re

from edgeproxy.edge.limits.policy import Policy

LEGACY = re.compile(rb"(?i)\r\nX-RateLimit-(?:Limit|Remaining|Reset):[^\r\n]*")


def format_rate_limit(policy: Policy, left: int, now: float) -> bytes:
    """Format the lines `RateLimit-Policy` and `RateLimit`, each with CRLF. `left` is the rest of the policy, ≥ 0.

    If there are several policies, the one closest to refusal is shown.
    """
    return b"%b%d%b" % (policy.rule.prefix, left, policy.tail(now))


def format_legacy(policy: Policy, left: int, now: float) -> bytes:
    """Format the lines `X-RateLimit-Limit`, `-Remaining` and `-Reset` (seconds from now), each with CRLF."""
    return b"X-RateLimit-Limit: %d\r\nX-RateLimit-Remaining: %d\r\nX-RateLimit-Reset: %b" % (
        policy.limit,
        left,
        policy.tail(now)[len(b";t=") :],
    )


def remove_legacy(head: bytes) -> bytes:
    """Return a head without the upstream's X-RateLimit lines, which clients could not tell from the edge's."""
    return LEGACY.sub(b"", head)
