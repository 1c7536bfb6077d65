"""A customer's limits: every policy that applies to the customer's requests, and its present use.

Workers apply the policies (edge/limits/route_limits.py), and the use is computed as in workers (edge/limits/usage.py).
"""

from collections.abc import Iterable, Iterator, Mapping
from zoneinfo import ZoneInfo

from edgeproxy.base.calendar import period_of
from edgeproxy.base.json_values import JsonObject
from edgeproxy.config.allowance import (
    Allowance,
    apply_caps,
    compute_effective_allowance,
    find_missing_reference,
    get_selection,
)
from edgeproxy.config.customers import Customer, Flag
from edgeproxy.config.directory import KnownCustomer
from edgeproxy.config.edge.routes import BASIC, Route
from edgeproxy.config.edge.settings import EdgeSettings
from edgeproxy.config.end_users import IP, EndUser
from edgeproxy.config.key_list import KeyList
from edgeproxy.config.limits import Limit, Quota
from edgeproxy.config.meters import Meter
from edgeproxy.config.selection import RouteSelector, Selecting
from edgeproxy.edge.counters.rows import LimitTable
from edgeproxy.edge.limits.route_limits import (
    AppliedLimit,
    CountedSubject,
    apply_limits,
    concurrency_rule,
    credits_rule,
    credits_sync,
    resolve_end_user,
    resolve_subject,
)
from edgeproxy.edge.limits.row_usage import Usage
from edgeproxy.edge.limits.rule import Rule
from edgeproxy.edge.limits.usage import compute_quota_usage, compute_usage
from edgeproxy.edge.proxy.routing.flags import has_flag

NO_FLAGS: Mapping[str, Flag] = {}

BY_ROUTE = ("route", "customer_route")
"""Scopes whose limits count each route separately."""

Policy = JsonObject
"""A line of `GET /limits/CUSTOMER`."""


class UnservedCustomerError(LookupError):
    """A tier or meter that a customer of the directory needs is missing, so each request is refused.

    The text names it.
    """


def find_file_customer(settings: EdgeSettings, customer: str) -> KnownCustomer | None:
    """Return the customer with this name from the configuration, or None."""
    configured = settings.customers.get(customer)
    if configured is None:
        return None
    return KnownCustomer(customer, configured, list(KeyList.from_keys(settings.keys).find_digests(customer)))


def list_policies(
    tables: Mapping[str, LimitTable],
    settings: EdgeSettings,
    who: KnownCustomer,
    now: float,
    directory_flags: Mapping[str, Flag] = NO_FLAGS,
) -> list[Policy]:
    """List the policies of a customer at edge time `now`, with these flags of the directory. Raises
    UnservedCustomerError.

    Policies that apply everywhere come first, then the policies of each route that the customer can use.
    """
    customer, known, keys = who
    if (missing := find_missing_reference(known, settings.tiers, settings.meters)) is not None:
        raise UnservedCustomerError(f"there is no {missing} here, which customer {customer} of the directory needs")
    allowance = apply_caps(
        compute_effective_allowance(settings.tiers[known.tier], known, {**directory_flags, **settings.flags}),
        settings.meters,
    )
    # The file wins over the directory, as for requests (`RouteAccess`).
    flags = {**directory_flags, **settings.flags}
    routes = [route for route in settings.routes if _can_use(flags, route, known, customer)]
    name = customer.encode()
    return [
        *_list_everywhere(tables, allowance, settings.meters, name, keys, now),
        *_list_by_route(tables, allowance, routes, RouteSelector(settings.routes), name, keys, now),
    ]


def _list_everywhere(
    tables: Mapping[str, LimitTable],
    allowance: Allowance,
    meters: Mapping[str, Meter],
    customer: bytes,
    keys: list[bytes],
    now: float,
) -> Iterator[Policy]:
    limits = [(True, limit) for limit in allowance.limits if limit.scope not in BY_ROUTE]
    for each, key in _apply_to_customer(limits, "", customer, keys):
        yield _rate_line(tables, each, now, key)
    table, scope, subject = resolve_subject("customer", "", customer)
    if allowance.concurrency is not None:
        rule = concurrency_rule(allowance.concurrency.max, scope)
        usage = _compute_remaining(tables[table], rule, subject, now)
        line = _line(rule.name, scope, rule.limit, 0, usage, rule.algorithm)
        yield {**line, **_name_requests(allowance.concurrency)}
    if allowance.burst_credits is not None:
        rule = credits_rule(allowance.burst_credits, scope)
        usage = _compute_remaining(tables[table], rule, subject, now, credits_sync(allowance))
        # The amount that can be saved up, and the time that this takes.
        window = rule.depth * rule.window / rule.limit
        yield _line(rule.name, scope, rule.depth, window, usage, rule.algorithm)
    for quota in allowance.quotas:
        if quota.per is not None:
            line = _quota_line(tables["quotas"], quota, quota.per, scope, subject, now)
            yield {**line, **_name_requests(get_selection(quota, meters[quota.meter]))}


def _list_by_route(
    tables: Mapping[str, LimitTable],
    allowance: Allowance,
    routes: Iterable[Route],
    selector: RouteSelector,
    customer: bytes,
    keys: list[bytes],
    now: float,
) -> Iterable[Policy]:
    # Routes that differ only in their methods may share a label, and so their lines.
    lines: dict[tuple[Rule, bytes, str], Policy] = {}
    for route in routes:
        own = (limit for limit in allowance.limits if selector.selects(limit, route))
        limits = [*((True, limit) for limit in own), *((False, limit) for limit in route.limits)]
        for each, key in _apply_to_customer(limits, route.label, customer, keys):
            if each.limit.scope in BY_ROUTE or not each.is_own:
                line = _rate_line(tables, each, now, key)
                lines[each.rule, each.subject, route.label] = {**line, "route": route.label}
    return lines.values()


def _can_use(flags: Mapping[str, Flag], route: Route, known: Customer, customer: str) -> bool:
    """Return whether a customer can be identified on a route and the route exists for them; else no limit applies
    there.
    """
    # These routes identify no customer.
    if route.auth_mode in ("none", BASIC):
        return False
    if route.flag is None or route.flag in known.flags:
        return True
    return route.flag in flags and has_flag(route.flag, flags[route.flag], known.tier, customer)


def _apply_to_customer(
    limits: Iterable[tuple[bool, Limit]], route: str, customer: bytes, keys: list[bytes]
) -> Iterator[tuple[AppliedLimit, bytes | None]]:
    """Yield the limits as they apply to a customer. A limit by key comes once for each key, together with the key."""
    limits = list(limits)
    for applied in apply_limits(limits, lambda limit: _resolve_limit(limit, route, customer)):
        if applied.limit.scope != "key" or applied.limit.per is not None:
            yield applied, None
            continue
        for key in keys:
            yield applied._replace(subject=resolve_subject("key", route, customer, key)[2]), key


def _resolve_limit(limit: Limit, route: str, customer: bytes) -> CountedSubject:
    """Return the subject of a limit: one for each limit by end user, without an end user's name."""
    subject = resolve_subject(limit.scope, route, customer)
    if limit.per is None:
        return subject
    place = limit.per.place if isinstance(limit.per, EndUser) else (IP, "")
    return resolve_end_user(subject, *place, b"")


def _rate_line(tables: Mapping[str, LimitTable], each: AppliedLimit, now: float, key: bytes | None) -> Policy:
    """Return the line of a limit of an allowance or of a route."""
    limit, rule = each.limit, each.rule
    # The use by each address or end user is not reported: clients could invent any number of them.
    is_of_many = limit.scope == "ip" or limit.per is not None
    usage = None if is_of_many else _compute_remaining(tables[each.table], rule, each.subject, now, limit.sync)
    line = _line(rule.name, limit.scope, rule.limit, rule.window, usage, rule.algorithm, rule.mode)
    if limit.per is not None:
        line["per"] = ":".join(limit.per.place) if isinstance(limit.per, EndUser) else IP
    if limit.of is not None:
        line["of"] = limit.of
    if rule.depth:
        line["burst"] = rule.depth
    if key is not None:
        line["key"] = key.hex()[:8]
    return {**line, **_name_requests(limit)}


def _compute_remaining(table: LimitTable, rule: Rule, subject: bytes, now: float, sync: str = "bounded") -> Usage:
    """Return the use of a rule. Nothing remains while the hub is away and the rule passes nothing without it."""
    usage, hub = compute_usage(table, rule, subject, now), table.hub
    if hub is None or not hub.is_away or rule.mode == "shadow" or not (sync == "strict" or hub.on_loss == "deny"):
        return usage
    return usage._replace(remaining=0, held_back=usage.held_back + usage.remaining)


def _quota_line(table: LimitTable, quota: Quota, per: str, scope: str, subject: bytes, now: float) -> Policy:
    zone = ZoneInfo(quota.timezone)
    _, since, until = period_of(now, per, zone)
    usage = compute_quota_usage(table, quota.count_name, quota.included, per, zone, subject, now)
    return {**_line(quota.name, scope, quota.included, until - since, usage, "quota"), "cap": quota.cap}


def _name_requests(part: Selecting) -> Policy:
    """Return the fields of a line that name the requests that a limit applies to; none if it applies to all."""
    named = {"routes": list(part.routes), "scopes": list(part.scopes)}
    return {field: names for field, names in named.items() if names}


def _line(
    name: str, scope: str, limit: int, window: float, usage: Usage | None, algorithm: str, mode: str = "enforce"
) -> Policy:
    line: Policy = {
        "name": name,
        "scope": scope,
        "limit": limit,
        "window_s": window,
        "used": None if usage is None else usage.used,
        "remaining": None if usage is None else usage.remaining,
        "reset_s": None if usage is None else usage.reset,
        "mode": mode,
        "algorithm": algorithm,
    }
    if usage is not None and usage.held_back:
        line["held_back"] = usage.held_back
    return line
