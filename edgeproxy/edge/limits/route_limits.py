"""The limits of a customer on a route: allowances and routes of the configuration become sets for admission."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from hashlib import blake2b
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple
from zoneinfo import ZoneInfo

from edgeproxy.config.allowance import feeds_meter, holds_route
from edgeproxy.config.end_users import IP, EndUser
from edgeproxy.config.limits import KeyBudget
from edgeproxy.config.meters import MEASURES, Meter, compute_request_amount
from edgeproxy.config.refusal_terms import get_quota_kind
from edgeproxy.config.selection import ANY_ROUTES, RouteSelector
from edgeproxy.config.units import COUNT_MAX
from edgeproxy.edge.limits.limit_set import LimitSet
from edgeproxy.edge.limits.policies import Policies
from edgeproxy.edge.limits.policy import Policy
from edgeproxy.edge.limits.quota import RequestCap
from edgeproxy.edge.limits.rule import Rule
from edgeproxy.edge.limits.unit_limit import OUTPUT_RESERVED, PARTS, BudgetReservation, RequestReserve

if TYPE_CHECKING:
    from edgeproxy.config.allowance import Allowance
    from edgeproxy.config.edge.routes import Route as RouteSettings
    from edgeproxy.config.limits import BurstCredits, Limit
    from edgeproxy.edge.limits.concurrency import Concurrency
    from edgeproxy.edge.limits.gate import Gate
    from edgeproxy.edge.limits.policies import Total
    from edgeproxy.edge.limits.quota import Quota
    from edgeproxy.edge.limits.rate_terms import Mode
    from edgeproxy.edge.limits.unit_limit import UnitLimit

DIGITS_MOST = 18
"""Digits of a cost that are read; longer numbers exceed any limit."""

END_USER_BYTES = 16
"""Bytes of the digest by which an end user is counted: nobody is named in a table, or at the hub."""
NO_NAMES: Final[Mapping[EndUser, bytes]] = MappingProxyType({})
NO_CLAIMS: Final[Mapping[str, bytes]] = MappingProxyType({})

SPEND_METER: Final = Meter(count="events")
"""The meter of a key's budget of money: edges know no prices, and charge it nothing."""
CONCURRENCY = "concurrency"
CREDITS = "burst-credits"


class PolicyTables(NamedTuple):
    """The policies of each table."""

    customers: Policies
    addresses: Policies
    quotas: Policies
    end_users: Policies


class RouteLimits:
    """All limits of one route binding. Limits by address are applied to each address separately."""

    def __init__(
        self,
        tables: PolicyTables,
        route: "RouteSettings",
        allowance: "Allowance | None",
        meters: "dict[str, Meter]",
        customer: bytes | None,
        key: bytes = b"",
        claims: Mapping[str, bytes] = NO_CLAIMS,
        selector: RouteSelector = ANY_ROUTES,
    ) -> None:
        """`allowance` is the customer's, or that of anonymous requests; None where none applies. `customer` is None for
        anonymous requests, which are limited by their address. `key` is the digest of the key. `claims` are those of a
        token. `selector` decides which limits of the allowance name the route.
        """
        self._tables = tables
        self._route, self._selector = route, selector
        self._allowance = None if allowance is None else self._select(allowance)
        self._meters = meters
        self._customer, self.key, self._claims = customer, key, claims
        own = () if self._allowance is None else self._allowance.limits
        limits = (*[(True, limit) for limit in own], *[(False, limit) for limit in route.limits])
        # Where answers state nothing there are no units.
        self._limits = tuple([each for each in limits if each[1].of is None or route.response_usage is not None])
        """The limits, each with whether it is of the allowance."""
        held = [each for each in self._apply_limits() if each.is_reported]
        held.sort(key=self._rank_reported)
        self.headers = tuple([cost_pattern(each.limit.cost_header or "") for each in held])
        """The fields of an answer that report the cost for each of the set's `reported`, then of its `spending`, and
        then of its `trials`."""
        self.by_address = (customer is None and bool(self)) or any(
            IP in (limit.scope, limit.per) for _, limit in self._limits
        )
        places = [limit.per for _, limit in self._limits if isinstance(limit.per, EndUser) and limit.per.is_of_request]
        self.name_places = tuple(dict.fromkeys(places))
        """The places where a request names its end user."""

    def __bool__(self) -> bool:
        """Return whether there is any limit."""
        allowance = self._allowance
        if self._limits or allowance is None:
            return bool(self._limits)
        more = allowance.concurrency or allowance.burst_credits or self._request_cap
        return bool(more) or any(quota.per is not None for quota in allowance.quotas)

    def _select(self, allowance: "Allowance") -> "Allowance":
        """Return what an allowance has for requests of this route. What they cost is spent whether a cap holds them or
        not."""
        is_held = partial(self._selector.selects, route=self._route)
        concurrency, caps = allowance.concurrency, allowance.caps
        return replace(
            allowance,
            limits=tuple([limit for limit in allowance.limits if limit.counts_all or is_held(limit)]),
            concurrency=concurrency if concurrency is not None and is_held(concurrency) else None,
            caps=caps if caps is not None and is_held(caps) else None,
        )

    def _rank_reported(self, each: "AppliedLimit") -> int:
        """Return the order of a limit of reported costs: those that refuse, those that only count, those on trial."""
        return 2 if each.is_shadow else 0 if self._selector.selects(each.limit, self._route) else 1

    @property
    def reads_prompts(self) -> bool:
        """Whether a request has to tell what it will take before it is admitted."""
        return bool(self._token_budgets) or any(limit.reserve == "request" for _, limit in self._limits)

    @property
    def _token_budgets(self) -> "list[KeyBudget]":
        """The budgets of a key that answers on this route are charged to when they state their usage."""
        if self._allowance is None or self._route.response_usage is None:
            return []
        return [
            quota
            for quota in self._allowance.quotas
            if isinstance(quota, KeyBudget)
            and not quota.is_of_money
            and MEASURES[self._meters[quota.meter].count].in_body is not None
        ]

    @property
    def request_most(self) -> int | None:
        """The highest cost of a request; None for any."""
        caps = None if self._allowance is None else self._allowance.caps
        return None if caps is None else caps.request

    @property
    def _request_cap(self) -> int | None:
        """The highest cost of a request, where requests of this route cost more."""
        most = self.request_most
        return most if most is not None and self._route.cost > most else None

    def build_limit_set(self, address: bytes = b"", names: Mapping[EndUser, bytes] = NO_NAMES) -> LimitSet:
        """Return the limits for an address, which matters where a limit is `by_address`, and for an end user."""
        allowance, tables = self._allowance, self._tables
        held = self._apply_limits(address, names)
        charged = [each for each in held if not (each.is_shadow or each.is_reported or each.limit.of)]
        name, scope, subject = self._resolve_subject("customer", address)
        table: Policies = getattr(tables, name)
        slots: list[Concurrency | BudgetReservation] = []
        quotas: list[Quota] = []
        metered: dict[str, tuple[Quota | UnitLimit, ...]] = {}
        credits, credits_gate = None, None
        totals: list[Total | None] = []
        if allowance is not None:
            if allowance.concurrency is not None:
                slots.append(table.get_concurrency(concurrency_rule(allowance.concurrency.max, scope), subject))
            # Anonymous quotas are counted where all addresses are, so that a flood of these takes no payer's row.
            counting = tables.addresses if self._customer is None else tables.quotas
            quotas, metered = self._get_quotas(allowance, counting, subject)
            reservations = [*self._reserve_budgets(quotas)]
            totals = [*map(table.total, slots), *map(counting.total, quotas)]
            totals += map(tables.customers.total, reservations)
            slots += reservations
            if allowance.burst_credits is not None:
                rule = credits_rule(allowance.burst_credits, scope)
                credits = table.get_policy(rule, subject, self._route.cost)
                credits_gate = table.gate(rule, subject, credits_sync(allowance))
        units = self._get_unit_limits(held, metered, totals)
        policies = self._policies(charged)
        by_rank: tuple[list[AppliedLimit], ...] = ([], [], [])
        for each in held:
            if each.is_reported:
                by_rank[self._rank_reported(each)].append(each)
        shadows = [each for each in held if each.is_shadow and not each.is_reported]
        reported, spending, trials = map(self._policies, by_rank)
        shadow_policies = self._policies(shadows)
        # Nobody asks at their gates.
        later = [*by_rank[0], *by_rank[1], *shadows, *by_rank[2]]
        reporting_gates = {
            **dict(self._gates(later, (*reported, *spending, *shadow_policies, *trials), "eventual")),
            **{each.policy: each.gate for each in units if each.gate is not None},
        }
        if (most := self._request_cap) is not None:
            quotas.append(RequestCap(self._route.cost, most))
        return LimitSet(
            policies,
            plan_policies=sum(each.is_own for each in charged),
            credits=credits,
            credits_gate=credits_gate,
            reported=reported,
            spending=spending,
            shadows=shadow_policies,
            trials=trials,
            slots=tuple(slots),
            units=tuple(units),
            quotas=tuple(quotas),
            metered=metered,
            gates=tuple(self._gates(charged, policies)),
            reporting_gates=reporting_gates,
            totals=tuple([total for total in totals if total is not None]),
        )

    def _get_unit_limits(
        self,
        held: "list[AppliedLimit]",
        metered: "dict[str, tuple[Quota | UnitLimit, ...]]",
        totals: "list[Total | None]",
    ) -> "list[UnitLimit]":
        """Return the limits of units, and add them to what meters charge and other hosts hear of."""
        applied: list[UnitLimit] = []
        for each in held:
            if each.limit.of is not None:
                table: Policies = getattr(self._tables, each.table)
                under_way = replace(each.rule, algorithm="concurrency", depth=0)
                units = table.get_unit_limit(
                    each.rule, under_way, each.subject, each.limit.reserved, self._build_request_reserve(each.limit)
                )
                metered[units.meter] = (*metered.get(units.meter, ()), units)
                totals.append(table.total(units))
                applied.append(units)
        return applied

    def _build_request_reserve(self, limit: "Limit") -> RequestReserve | None:
        """Return how much a request reserves by what it tells; None where each reserves the same."""
        if limit.reserve != "request" or limit.of is None:
            return None
        return RequestReserve(*PARTS[self._meters[limit.of].count], limit.reserved, limit.reserved_most)

    def _reserve_budgets(self, quotas: "Iterable[Quota]") -> "Iterator[BudgetReservation]":
        """Yield the reservations of a request in the budgets of its key, of which `quotas` are the counts."""
        for budget in self._token_budgets:
            count = next((quota for quota in quotas if quota.name == budget.name and quota.hard), None)
            parts = PARTS.get(self._meters[budget.meter].count)
            if count is not None and parts is not None:
                rule = Rule(budget.name, budget.included, 0.0, "key", "concurrency")
                slots = self._tables.customers.get_concurrency(rule, budget.subject.encode()).counts
                reserve = RequestReserve(*parts, OUTPUT_RESERVED, budget.included)
                yield BudgetReservation(count, slots, reserve, budget.included)

    def _get_quotas(
        self, allowance: "Allowance", counting: Policies, subject: bytes
    ) -> "tuple[list[Quota], dict[str, tuple[Quota | UnitLimit, ...]]]":
        """Return the quotas of a subject, and by meter those that are charged what it counts later."""
        quotas: list[Quota] = []
        metered: dict[str, tuple[Quota | UnitLimit, ...]] = {}
        for quota in allowance.quotas:
            if quota.per is None:
                continue  # A quota of what exists, such as seats: the collector enforces it.
            budget = quota if isinstance(quota, KeyBudget) else None
            is_of_money = budget is not None and budget.is_of_money
            meter = SPEND_METER if is_of_money else self._meters[quota.meter]
            is_fed = feeds_meter(meter, self._route, self._selector)
            is_held = holds_route(quota, meter, self._route, self._selector)
            amount = compute_request_amount(meter.count, self._route.cost) if is_fed else 0
            is_counted_later = is_fed and not (amount or MEASURES[meter.count].is_of_services)
            if not (is_held or amount or is_counted_later):
                continue
            policy = counting.get_quota(
                quota.name,
                quota.included,
                quota.per,
                ZoneInfo(quota.timezone),
                subject if budget is None else budget.subject.encode(),
                hard=quota.cap == "hard",
                when=meter.when,
                holds=is_held,
                kind=get_quota_kind(quota),
                cost=amount,
                count_name=quota.count_name,
                why=getattr(quota, "why", None),
                is_balance=getattr(quota, "is_credits", False),
            )
            if any(policy.counts is other.counts for other in quotas):
                policy.cost = 0  # A count is charged once, by its first quota; the others hold it to their amounts.
            elif is_counted_later:
                metered[quota.meter] = (*metered.get(quota.meter, ()), policy)
            quotas.append(policy)
        return quotas, metered

    def _gates(
        self, held: "list[AppliedLimit]", policies: tuple[Policy, ...], mode: "Mode | None" = None
    ) -> "Iterator[tuple[Policy, Gate]]":
        """Yield the gates before limits that other hosts share. `mode` replaces the mode of each limit."""
        for each, policy in zip(held, policies, strict=True):
            table: Policies = getattr(self._tables, each.table)
            gate = table.gate(each.rule, each.subject, mode or each.limit.sync)
            if gate is not None:
                yield policy, gate

    def _apply_limits(self, address: bytes = b"", names: Mapping[EndUser, bytes] = NO_NAMES) -> "list[AppliedLimit]":
        """Return the limits as they apply to this address and end user, those of the allowance first."""
        return apply_limits(self._limits, lambda limit: self._resolve_limit(limit, address, names))

    def _resolve_limit(self, limit: "Limit", address: bytes, names: Mapping[EndUser, bytes]) -> "CountedSubject":
        subject = self._resolve_subject(limit.scope, address)
        per = limit.per
        if per is None:
            return subject
        if isinstance(per, str):
            return resolve_end_user(subject, per, "", address)
        name = names.get(per, b"") if per.is_of_request else self._claims.get(per.claim or "", b"")
        return resolve_end_user(subject, *per.place, name)

    def _policies(self, held: "Iterable[AppliedLimit]") -> tuple[Policy, ...]:
        policies = []
        for each in held:
            table: Policies = getattr(self._tables, each.table)
            # In limits of the route alone each request counts once.
            policies.append(table.get_policy(each.rule, each.subject, self._route.cost if each.is_own else 1))
        return tuple(policies)

    def _resolve_subject(self, scope: str, address: bytes) -> "CountedSubject":
        return resolve_subject(scope, self._route.label, self._customer, self.key, address)


CountedSubject = tuple[str, str, bytes]
"""The name of a table, and the scope and subject that are counted in it."""


def resolve_subject(
    scope: str, route: str, customer: bytes | None, key: bytes = b"", address: bytes = b""
) -> CountedSubject:
    """Return the subject by which a limit of this scope counts requests on a route; `customer` is None for anonymous
    ones.
    """
    label = route.encode()
    if scope == "route":
        return "customers", scope, label
    if customer is None:
        # Who has no key is counted by address.
        if scope == "customer_route":
            return "addresses", scope, b"%b\0%b" % (address, label)
        return "addresses", "ip", address
    if scope == "ip":
        return "addresses", scope, address
    if scope == "key":
        return "customers", scope, key
    if scope == "customer_route":
        return "customers", scope, b"%b\0%b" % (customer, label)
    return "customers", scope, customer


def resolve_end_user(subject: CountedSubject, place: str, label: str, name: bytes) -> CountedSubject:
    """Return the subject by which an end user of this name is counted within another subject."""
    digest = blake2b(digest_size=END_USER_BYTES)
    for part in (subject[1].encode(), subject[2], place.encode(), label.lower().encode(), name):
        digest.update(b"%d:%b" % (len(part), part))
    return "end_users", "end_user", digest.digest()


class AppliedLimit(NamedTuple):
    """A limit as it applies to a subject on a route."""

    limit: "Limit"
    is_own: bool
    """Whether it is of the customer's allowance, not of the route alone."""
    rule: Rule
    table: str
    subject: bytes

    @property
    def is_shadow(self) -> bool:
        """Whether it refuses no request."""
        return self.limit.mode == "shadow"

    @property
    def is_reported(self) -> bool:
        """Whether it is charged the cost that answers report, not at admission."""
        return self.limit.cost_header is not None


def apply_limits(limits: "Iterable[tuple[bool, Limit]]", by: "Callable[[Limit], CountedSubject]") -> list[AppliedLimit]:
    """Apply these limits, each with whether it is of the allowance; `by` maps a limit to its subject.

    A limit of the allowance and one of the route may be the same but for their counts: they share one row, and the
    lower applies. Those of the allowance come first.
    """
    by_row: dict[bytes, AppliedLimit] = {}
    for is_own, limit in limits:
        table, scope, subject = by(limit)
        rule = build_rule(limit, scope)
        row = rule.key(subject)
        same = by_row.get(row)
        if same is None or (rule.limit, rule.depth) <= (same.rule.limit, same.rule.depth):
            by_row[row] = AppliedLimit(limit, is_own, rule, table, subject)
    return sorted(by_row.values(), key=lambda each: not each.is_own)


def build_rule(limit: "Limit", scope: str) -> Rule:
    """Return the rule of a configured limit."""
    named = () if limit.counts_all else (*sorted(limit.routes), "", *sorted(limit.scopes))
    return Rule(
        limit.name,
        limit.count,
        limit.window,
        scope,
        limit.algorithm,
        limit.mode,
        limit.depth,
        limit.of or "",
        " ".join(named) if any(named) else "",
    )


def concurrency_rule(limit: int, scope: str) -> Rule:
    """Return the rule of a limit on requests at once."""
    return Rule(CONCURRENCY, limit, 0.0, scope, "concurrency")


def credits_rule(credits: "BurstCredits", scope: str) -> Rule:
    """Return the rule of burst credits."""
    return Rule(CREDITS, credits.earn.count, credits.earn.seconds, scope, "burst_credits", depth=credits.max)


def credits_sync(allowance: "Allowance") -> "Mode":
    """Return the sync mode of an allowance's burst credits: the strictest mode of the limits beyond which they pay.

    Bounded where there are none.
    """
    modes = {limit.sync for limit in allowance.limits if limit.mode == "enforce" and limit.counts_requests}
    return next((sync for sync in ("strict", "bounded", "eventual") if sync in modes), "bounded")


def cost_pattern(name: str) -> re.Pattern[bytes]:
    """Return a pattern for a whole number in the field of this name within a head; its group is the number."""
    return re.compile(rb"(?i)\r\n%b:[ \t]*([0-9]+)[ \t]*\r\n" % re.escape(name.encode()))


def parse_cost(head: bytes, field: re.Pattern[bytes]) -> int | None:
    """Parse the cost that a head reports in this field: its first whole number, as far as counts go. None without
    one.
    """
    match = field.search(head)
    if match is None:
        return None
    digits = match[1].lstrip(b"0")
    return min(int(digits or b"0"), COUNT_MAX) if len(digits) < DIGITS_MOST else COUNT_MAX
