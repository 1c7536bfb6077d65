"""RateLimit fields of answers: draft-ietf-httpapi-ratelimit-headers-10, and the X-RateLimit lines of old."""

from edgeproxy.limits.policies import Policy


def rate_limit(policy: Policy, left: int, now: float) -> bytes:
    """The lines `RateLimit-Policy` and `RateLimit`, each with CRLF. `left`: what the policy has left, ≥ 0.

    Of several policies the one closest to refusal is shown.
    """
    return b"%b%d%b" % (policy.prefix, left, policy.tail(now))


def legacy(policy: Policy, left: int, now: float) -> bytes:
    """The lines `X-RateLimit-Limit`, `-Remaining` and `-Reset` (seconds from now), each with CRLF."""
    return b"X-RateLimit-Limit: %d\r\nX-RateLimit-Remaining: %d\r\nX-RateLimit-Reset: %d\r\n" % (
        policy.limit,
        left,
        policy.reset(now),
    )
