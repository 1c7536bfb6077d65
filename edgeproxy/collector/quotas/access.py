"""Decides whether a customer may make requests now. Pure.

For each limit that may refuse requests: its use, its end, and the remedy. The edge's refusals have the same kinds and
remedies. Pages and commands show this description and have none of their own.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Literal

from typing_extensions import TypedDict

from edgeproxy.base.clock import EPOCH
from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.quotas.quota_status import QuotaUsage
from edgeproxy.config.customers import Customer
from edgeproxy.config.limits import Limit
from edgeproxy.config.refusal_terms import TERMS, RefusalKind, Remedy, get_quota_kind
from edgeproxy.config.selection import Selecting
from edgeproxy.config.units import Rate
from edgeproxy.wire.limit_usage import LimitUsage

NEAR: Final = 0.8
"""A limit counts as nearly reached from this share on."""
AccessState = Literal["free", "near", "reached", "unknown"]
Verdict = Literal["yes", "partly", "no"]
OF_ALL: Final = ("key", "account", "credits")
"""The kinds that refuse all requests of the customer once reached. Edges check them in this order."""


class AccessLimit(TypedDict):
    """A limit that may refuse requests of a customer."""

    name: str
    """The name of the limit, as in edges' problems; for a budget, the start of the key."""
    kind: RefusalKind
    """`account` for a pause, `key` for the customer's working keys; else the kind in edges' problems."""
    state: AccessState
    """`reached`: it refuses requests now. `near`: four fifths are used. `unknown`: its use is not known here."""
    used: int | None
    """The units used; null if they are not known, or if the limit has no units."""
    allowed: int | None
    """The units allowed; null if the limit has no units."""
    meter: str | None
    """The counted meter; null if the limit counts requests, money or nothing."""
    currency: str | None
    """The currency of credits (counted in millicredits) or of a budget in money; null for any other limit."""
    window_s: float | None
    """The seconds of a rate's window; null for any other limit."""
    is_hard: bool
    """True if requests are refused once the limit is reached."""
    status: int
    """The HTTP status of a refusal."""
    remedy: Remedy
    """The action that ends a refusal."""
    ends_at: str | None
    """The time when the limit starts again; null if that does not depend on time, or is not known."""
    why: str | None
    """The reason for clients, such as the reason of a pause; null if the limit has none of its own."""
    routes: list[str]
    """The routes whose requests it may refuse; empty for all that count."""


def describe_account(is_active: bool, paused: Mapping[str, object] | None) -> AccessLimit:
    """Describe whether the customer is active. `paused` holds the reason and the status of a pause."""
    status = int(str((paused or {}).get("status", TERMS["account"].status)))
    limit = _describe("account", "account", "free" if is_active else "reached", status=status)
    limit["why"] = None if paused is None else str(paused.get("why"))
    limit["remedy"] = "pay" if status == 402 else TERMS["account"].remedy
    return limit


def describe_keys(usable: int, ended: int) -> list[AccessLimit]:
    """Describe the working keys.

    The list is empty for a customer that never had a key, as it may be identified otherwise.
    """
    if not usable and not ended:
        return []
    return [_describe("keys", "key", "free" if usable else "reached", used=usable)]


def describe_credits(granted: int, used: int, currency: str, *, is_charged: bool) -> AccessLimit:
    """Describe prepaid credits in millicredits. They refuse no requests unless the customer is charged."""
    limit = _describe("credits", "credits", _find_state(used, granted, is_charged), used=used, allowed=granted)
    limit["currency"], limit["is_hard"] = currency, is_charged
    return limit


def describe_quota(status: QuotaUsage, held: Selecting) -> AccessLimit:
    """Describe a quota and the routes that it applies to."""
    quota, is_hard = status.quota, status.quota.cap == "hard"
    limit = _describe(
        quota.name,
        get_quota_kind(quota),
        _find_state(status.used, quota.included, is_hard),
        used=status.used,
        allowed=quota.included,
        is_hard=is_hard,
    )
    limit["meter"], limit["routes"] = quota.meter, list(held.routes)
    if status.period is not None:
        limit["ends_at"] = format_timestamp(round((status.period.until + EPOCH) * 1000))
    limit["why"] = getattr(quota, "why", None)
    return limit


def describe_rate(limit: Limit, used: int | None) -> AccessLimit:
    """Describe a rate limit and its use in the window; `used` is None if unknown."""
    described = _describe(limit.name, "rate", _find_state(used, limit.count, True), used=used, allowed=limit.count)
    described["window_s"], described["routes"] = limit.window, list(limit.routes)
    return described


def describe_route_limit(use: LimitUsage) -> AccessLimit:
    """Describe a route's own rate or limit of concurrent requests, as an edge reports it."""
    if not use.window_s:
        return describe_concurrency(use.count, [use.route], use.used)
    limit = _describe(use.limit, "rate", _find_state(use.used, use.count, True), used=use.used, allowed=use.count)
    limit["window_s"], limit["routes"] = use.window_s, [use.route]
    return limit


def describe_session(session: Rate, used: int | None) -> AccessLimit:
    """Describe the spending cap in a sliding time window, in millicredits."""
    limit = _describe("session", "cap", _find_state(used, session.count, True), used=used, allowed=session.count)
    limit["window_s"] = session.seconds
    return limit


def describe_concurrency(allowed: int, routes: Sequence[str], used: int | None) -> AccessLimit:
    """Describe the limit of concurrent requests."""
    limit = _describe("concurrency", "concurrency", _find_state(used, allowed, True), used=used, allowed=allowed)
    limit["routes"] = list(routes)
    return limit


def describe_budget(
    name: str,
    of: tuple[str | None, str | None],
    used: int | None,
    allowed: int,
    resets: str,
    *,
    is_held: bool,
) -> AccessLimit:
    """Describe a key's budget, `of` a meter or a currency.

    A money budget refuses nothing unless the customer is charged.
    """
    limit = _describe(name, "budget", _find_state(used, allowed, is_held), used=used, allowed=allowed, is_hard=is_held)
    (limit["meter"], limit["currency"]), limit["ends_at"] = of, resets
    return limit


def find_verdict(limits: Iterable[AccessLimit]) -> Verdict:
    """Return whether the customer may call: `partly` if only some requests are refused."""
    reached = {limit["kind"] for limit in limits if limit["state"] == "reached"}
    if reached.intersection(OF_ALL):
        return "no"
    return "partly" if reached else "yes"


def order_limits(limits: Iterable[AccessLimit]) -> list[AccessLimit]:
    """Return limits that refuse all requests first, then limits that refuse some, then the fullest.

    Edges answer with the first one, so that its remedy comes first.
    """

    def key(limit: AccessLimit) -> tuple[int, bool, float]:
        is_reached = limit["state"] == "reached"
        part = limit["used"] / max(limit["allowed"], 1) if limit["used"] and limit["allowed"] else 0.0
        rank = OF_ALL.index(limit["kind"]) if is_reached and limit["kind"] in OF_ALL else len(OF_ALL)
        return rank, not is_reached, -part

    return sorted(limits, key=key)


def get_pause(customer: Customer | None) -> Mapping[str, object] | None:
    """Return the reason and status of a customer's pause, or None if it is not paused."""
    return None if customer is None or customer.paused is None else customer.paused.model_dump()


def _find_state(used: int | None, allowed: int, is_hard: bool) -> AccessState:
    if used is None:
        return "unknown"
    if used >= allowed and is_hard:
        return "reached"
    return "near" if used >= NEAR * allowed else "free"


def _describe(
    name: str,
    kind: RefusalKind,
    state: AccessState,
    *,
    used: int | None = None,
    allowed: int | None = None,
    is_hard: bool = True,
    status: int | None = None,
) -> AccessLimit:
    terms = TERMS[kind]
    return AccessLimit(
        name=name,
        kind=kind,
        state=state,
        used=used,
        allowed=allowed,
        meter=None,
        currency=None,
        window_s=None,
        is_hard=is_hard,
        status=terms.status if status is None else status,
        remedy=terms.remedy,
        ends_at=None,
        why=None,
        routes=[],
    )
