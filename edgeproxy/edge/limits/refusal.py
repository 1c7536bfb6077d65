"""Refusals in words and fields: the limit that refuses, its use, and the end of the refusal. Pure.

If several limits refuse, the stated one has the longest wait, because Retry-After is its wait; spent credits come
first.
"""

from datetime import UTC, datetime
from typing import Final, NamedTuple, cast

from edgeproxy.base.clock import EPOCH
from edgeproxy.config.limits import Messages
from edgeproxy.config.refusal_terms import TERMS, LimitKind, Remedy
from edgeproxy.edge.limits.concurrency import ConcurrencyLimit
from edgeproxy.edge.limits.denial import Denial
from edgeproxy.edge.limits.fields import format_legacy, format_rate_limit
from edgeproxy.edge.limits.limit_set import Bound
from edgeproxy.edge.limits.policy import Policy
from edgeproxy.edge.limits.quota import Balance, Quota, RequestCap
from edgeproxy.edge.limits.unit_limit import BudgetReservation, UnitLimit

RESERVED: Final = ", the rest is reserved by requests under way"


class StatedLimit(NamedTuple):
    """The limit that refused a request, as its problem states it."""

    name: str
    kind: LimitKind
    used: int
    """The used units: requests, costs, or the meter's counts."""
    allowed: int
    remedy: Remedy
    """The remedy that ends the refusal."""
    ends_at: str | None = None
    """The moment (RFC 3339) when the limit has room again; None if time does not help."""


class Refusal(NamedTuple):
    """A refusal for the client: a sentence without its full stop, the RateLimit lines, and the limit."""

    sentence: str
    lines: bytes
    limit: StatedLimit


def add_message(sentence: str, message: str | Messages | None, kind: LimitKind) -> str:
    """Return the detail of a problem: the sentence, followed by the operator's message for this kind of limit."""
    text: str | None = getattr(message, kind) if isinstance(message, Messages) else message
    return sentence if text is None else f"{sentence}. {text}"


def list_members(limit: StatedLimit) -> tuple[tuple[str, object], ...]:
    """Return the members of a problem's `limit`, without the moment if there is none."""
    return tuple([(name, value) for name, value in limit._asdict().items() if value is not None])


def find_stated_bound(denial: Denial, now: float) -> Bound:
    """Return the limit of a denial that answers state: spent credits, else the first with the longest wait."""
    violated, _ = denial
    if len(violated) == 1:
        return violated[0]
    return max(violated, key=lambda bound: (isinstance(bound, Balance), bound.retry_after(now, 1)))


def describe_refusal(bound: Bound, now: float, retry_after: int, *, legacy: bool = False) -> Refusal:
    """Describe the refusal by a limit at edge time `now`. `legacy`: with the older X-RateLimit fields."""
    quota = bound.budget if isinstance(bound, BudgetReservation) else bound
    if isinstance(quota, Quota):
        is_reserved = quota is not bound and quota.left(now) > 0
        return _describe_quota(quota, now, retry_after, legacy, is_reserved)
    if isinstance(bound, ConcurrencyLimit):
        return _describe_concurrency(bound)
    if isinstance(bound, UnitLimit):
        is_reserved = bound.policy.left(now) >= bound.reserve
        return _describe_rate(bound.policy, now, retry_after, legacy, is_reserved)
    return _describe_rate(cast(Policy, bound), now, retry_after, legacy)


def _describe_concurrency(bound: ConcurrencyLimit) -> Refusal:
    used = bound.counts.count_used()
    stated = f"{TERMS['concurrency'].lead} ({bound.name}: {used} of {bound.limit} under way)"
    name = bound.name.encode()
    # Section 3.1.1 of draft-ietf-httpapi-ratelimit-headers-10: the unit is not requests in a time.
    policy = b'RateLimit-Policy: "%b";q=%d;qu="concurrent-requests"\r\n' % (name, bound.limit)
    lines = b'%bRateLimit: "%b";r=0\r\n' % (policy, name)
    return Refusal(
        f"{stated}; try again when one has ended",
        lines,
        StatedLimit(bound.name, "concurrency", used, bound.limit, "wait"),
    )


def _describe_rate(policy: Policy, now: float, retry_after: int, legacy: bool, is_reserved: bool = False) -> Refusal:
    now_left, rule = policy.left(now), policy.rule
    left, used = max(0, now_left), policy.most - now_left
    is_spending = rule.scope == "spending"
    kind: LimitKind = "cap" if is_spending else "rate"
    units = f" {rule.of}" if rule.of else ""
    sentence = f"{TERMS[kind].lead} ({policy.name}: {used} of {policy.most}{units} in {rule.window:g} s)"
    if is_reserved:
        sentence += RESERVED
    if retry_after:
        sentence += f"; try again in {retry_after} s"
    lines = format_rate_limit(policy, left, now) + (format_legacy(policy, left, now) if legacy else b"")
    remedy: Remedy = "wait" if retry_after else "change_request"
    ends_at = _format_moment(now + retry_after) if retry_after else None
    return Refusal(sentence, lines, StatedLimit(policy.name, kind, used, policy.most, remedy, ends_at))


def _describe_quota(quota: Quota, now: float, retry_after: int, legacy: bool, is_reserved: bool = False) -> Refusal:
    name = quota.name.encode()
    if isinstance(quota, RequestCap):
        limit = StatedLimit(quota.name, "cap", quota.needs, quota.limit, "change_request")
        lines = b'RateLimit-Policy: "%b";q=%d\r\n' % (name, quota.limit)
        return Refusal("The request costs more than a request may", lines, limit)
    now_left = quota.left(now)
    left, used = max(0, now_left), quota.limit - now_left
    lead = quota.why or TERMS[quota.kind].lead
    stated = f"{lead} ({quota.name}: {used} of {quota.limit})"
    if isinstance(quota, Balance):
        lines = b'RateLimit-Policy: "%b";q=%d\r\nRateLimit: "%b";r=%d\r\n' % (name, quota.limit, name, left)
        return Refusal(f"{stated}; top up", lines, StatedLimit(quota.name, "credits", used, quota.limit, "top_up"))
    period = quota.counts.period
    seconds, window = max(1, int(period.until - now) + 1), round(period.until - period.since)
    lines = b'RateLimit-Policy: "%b";q=%d;w=%d\r\nRateLimit: "%b";r=%d;t=%d\r\n' % (
        *(name, quota.limit, window),
        *(name, left, seconds),
    )
    if legacy:
        lines += b"X-RateLimit-Limit: %d\r\nX-RateLimit-Remaining: %d\r\nX-RateLimit-Reset: %d\r\n" % (
            *(quota.limit, left, seconds),
        )
    if not retry_after:
        return Refusal(stated, lines, StatedLimit(quota.name, quota.kind, used, quota.limit, "change_request"))
    if is_reserved:
        stated = f"The budget is reserved ({quota.name}: {used} of {quota.limit}{RESERVED})"
        limit = StatedLimit(quota.name, quota.kind, used, quota.limit, "wait", _format_moment(now + retry_after))
        return Refusal(f"{stated}; try again in {retry_after} s", lines, limit)
    remedy = TERMS[quota.kind].remedy
    end = _format_moment(period.until)
    what = f"upgrade the plan, or wait until {end}" if remedy == "upgrade" else f"wait until {end}"
    return Refusal(f"{stated}; {what}", lines, StatedLimit(quota.name, quota.kind, used, quota.limit, remedy, end))


def _format_moment(now: float) -> str:
    """Return an edge time as RFC 3339 in UTC, in whole seconds, not too early."""
    return datetime.fromtimestamp(-int(-(now + EPOCH) // 1), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
