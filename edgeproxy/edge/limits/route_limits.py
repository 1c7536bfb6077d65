"""The limits of a customer on a route: the configuration's allowances and routes become sets for admission."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache, partial
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
from edgeproxy.edge.counters.index import RowUnavailableError
from edgeproxy.edge.limits.limit_set import LimitSet, SetTraits
from edgeproxy.edge.limits.policies import Policies
from edgeproxy.edge.limits.policy import Policy
from edgeproxy.edge.limits.quota import RequestCap
from edgeproxy.edge.limits.reported_cost import cost_pattern
from edgeproxy.edge.limits.rule import Rule
from edgeproxy.edge.limits.unit_limit import OUTPUT_RESERVED, PARTS, BudgetReservation, RequestReserve

if TYPE_CHECKING:
    from edgeproxy.config.allowance import Allowance
    from edgeproxy.config.edge.customer_store import CustomerKey
    from edgeproxy.config.edge.routes import Route as RouteSettings
    from edgeproxy.config.limits import BurstCredits, Limit
    from edgeproxy.edge.limits.concurrency import ConcurrencyLimit
    from edgeproxy.edge.limits.gate import Gate
    from edgeproxy.edge.limits.policies import Total
    from edgeproxy.edge.limits.quota import Quota
    from edgeproxy.edge.limits.rate_terms import Mode
    from edgeproxy.edge.limits.unit_limit import UnitLimit

END_USER_BYTES = 16
"""Bytes of the digest that counts an end user: neither a table nor the hub has a name."""
NO_NAMES: Final[Mapping[EndUser, bytes]] = MappingProxyType({})
NO_CLAIMS: Final[Mapping[str, bytes]] = MappingProxyType({})

SPEND_METER: Final = Meter(count="events")
"""The meter of a key's budget of money: edges know no prices, and charge it nothing."""
RULES_MAX = 1024
"""Cached rules of concurrency."""
CONCURRENCY = "concurrency"
CREDITS = "burst-credits"


class PolicyTables(NamedTuple):
    """The policies of each table."""

    customers: Policies
    addresses: Policies
    quotas: Policies
    end_users: Policies


class PlainRate(NamedTuple):
    """A rate of many customers, prepared for the set of each."""

    policies: Policies
    rule: Rule
    cost: int
    """The cost of a request."""
    sync: "Mode"


class LimitTerms:
    """The limits of a route's requests under an allowance, for any customer: created once, and used for each customer's
    limits.
    """

    __slots__ = (
        "allowance", "by_address", "headers", "is_anonymous", "limits", "meters", "name_places", "plain",
        "plain_keys", "plain_makers", "plain_rates", "plain_slots", "plain_slots_maker", "plain_table", "plain_traits",
        "route",
        "selector", "tables",
    )  # fmt: skip

    def __init__(
        self,
        tables: PolicyTables,
        route: "RouteSettings",
        allowance: "Allowance | None",
        meters: "dict[str, Meter]",
        selector: RouteSelector = ANY_ROUTES,
        *,
        is_anonymous: bool = False,
    ) -> None:
        """Create the terms.

        `allowance` is the customers'; None if none applies. `selector` decides which of its limits name the route.
        `is_anonymous`: requests have no key, and are limited by address.
        """
        self.tables = tables
        self.route, self.selector = route, selector
        self.allowance = None if allowance is None else self._select(allowance)
        self.meters, self.is_anonymous = meters, is_anonymous
        own = () if self.allowance is None else self.allowance.limits
        limits = (*[(True, limit) for limit in own], *[(False, limit) for limit in route.limits])
        # An answer that states no usage has no units.
        self.limits = tuple([limit for limit in limits if limit[1].of is None or route.response_usage is not None])
        """The limits. Each comes with True if it belongs to the allowance."""
        self.by_address = (is_anonymous and bool(self)) or any(
            IP in (limit.scope, limit.per) for _, limit in self.limits
        )
        places = [limit.per for _, limit in self.limits if isinstance(limit.per, EndUser) and limit.per.is_of_request]
        self.name_places = tuple(dict.fromkeys(places))
        """The places of a request that name its end user."""
        # Limits that share a row share it for every customer.
        applied = RouteLimits(self, None if is_anonymous else b"").apply_limits()
        held = [each for each in applied if each.is_reported]
        held.sort(key=self.rank_reported)
        self.headers = tuple([cost_pattern(each.limit.cost_header or "") for each in held])
        """The answer fields that report the cost for each of the set's `reported`, then of its `spending`, then of its
        `trials`.
        """
        self.plain = tuple(applied) if self._is_plain(applied) else None
        """The customer's limits if these are only rates, and no address or end user has its own; concurrency may come
        beside them. None: each customer's set must be built in full.
        """
        self.plain_rates: tuple[PlainRate, ...] = tuple([self._prepare(each) for each in self.plain or ()])
        """The `plain` limits, prepared for each customer's set."""
        concurrency = None if self.allowance is None else self.allowance.concurrency
        self.plain_slots = None if concurrency is None else concurrency_rule(concurrency.max, "customer")
        """The concurrency beside the `plain` limits."""
        is_alone = self.plain is not None and not tables.customers.shares
        self.plain_table = tables.customers.table if is_alone else None
        """The table that has the rows of the `plain` limits, if no other host shares them."""
        self.plain_traits = SetTraits(has_policies=bool(self.plain), has_slots=concurrency is not None)
        """The traits of sets with the `plain` limits, if no other host shares them."""
        self._prepare_sets()

    def _prepare_sets(self) -> None:
        """Prepare `create_plain_set`."""
        rates = self.plain_rates
        is_by_name = self.plain_table is not None and all(each.rule.scope == "customer" for each in rates)
        makers = tuple([each.policies.prepare_rate(each.rule, each.cost) for each in rates])
        self.plain_makers = makers if is_by_name else None
        """The functions that create a customer's policies, if its name alone decides its set; else None."""
        slots, customers = self.plain_slots, self.tables.customers
        self.plain_slots_maker = None if slots is None else customers.prepare_concurrency(slots)
        self.plain_keys: tuple[tuple[bytes, int, int], ...] = ()
        """For each limit of a set from `create_plain_set` the beginning of its row's key, and the width and flags of a
        new row. Empty if objects of the process share rows, so that some may have found theirs before.
        """
        if self.plain_makers is not None and customers.has_own_objects:
            limits = self.create_plain_set(b"")
            keys = [each.counts.describe_row() for each in (*limits.policies, *limits.slots)]
            if not any(each.rule.depth for each in rates):
                self.plain_keys = tuple([key for key in keys if key is not None])

    def create_plain_set(self, customer: bytes) -> LimitSet:
        """Return the limits of a customer whose name alone decides them (`plain_makers`)."""
        makers, make_slots = self.plain_makers, self.plain_slots_maker
        assert makers is not None
        slot = None if make_slots is None else make_slots(customer)
        if len(makers) == 1:
            return LimitSet.create_lone(makers[0](customer), slot, self.plain_traits)
        policies = tuple([make(customer) for make in makers])
        return LimitSet(policies, self.plain_traits, () if slot is None else (slot,))

    def find_rows(self, limit_set: LimitSet, customer: bytes, now: float) -> None:
        """Find or claim the rows of a customer's new limits at once, at edge time `now`, if all of them are in one
        table. Otherwise, or if there is no row to be had, each looks for its own row at its first decision.
        """
        table = self.plain_table
        if table is None:
            return
        if not self.plain_keys:
            limit_set.find_rows(table, now)
            return
        try:
            rows = table.find_all(self.plain_keys, now, customer)
        except RowUnavailableError:
            return
        rate, slot = limit_set.rate, limit_set.slot
        if rate is not None:  # Without the tuples of `policies` and `slots`, as for most customers.
            rate.counts.bind_row(rows[0], now)
            if slot is not None:
                slot.counts.bind_row(rows[1], now)
            return
        for limit, row in zip(limit_set.policies + limit_set.slots, rows, strict=True):
            limit.counts.bind_row(row, now)

    def __bool__(self) -> bool:
        """Return whether there is any limit."""
        allowance = self.allowance
        if self.limits or allowance is None:
            return bool(self.limits)
        more = allowance.concurrency or allowance.burst_credits or self.request_cap
        return bool(more) or any(quota.per is not None for quota in allowance.quotas)

    def describe_shared(self) -> object:
        """Return a value that is equal for terms of routes on which a customer, or its key, has equal limits.

        None if the limits depend on the route, or are not `plain`.
        """
        if self.plain is None or any(each.limit.scope not in ("customer", "key") for each in self.plain):
            return None
        cost, allowance = self.route.cost, self.allowance
        rates = [(each.rule, cost if each.is_own else 1, each.limit.sync, each.limit.scope) for each in self.plain]
        concurrency = None if allowance is None else allowance.concurrency
        return (*rates, None if concurrency is None else concurrency.max)

    def _prepare(self, each: "AppliedLimit") -> PlainRate:
        table: Policies = getattr(self.tables, each.table)
        return PlainRate(table, each.rule, self.route.cost if each.is_own else 1, each.limit.sync)

    def _is_plain(self, applied: "list[AppliedLimit]") -> bool:
        """Return whether the limits fit the description of `plain`."""
        allowance = self.allowance
        has_more = allowance is not None and (allowance.quotas or allowance.burst_credits is not None)
        special = self.is_anonymous or self.by_address or self.name_places or has_more or self.request_cap is not None
        return not special and not any(
            each.is_shadow or each.is_reported or each.limit.of or each.limit.per is not None for each in applied
        )

    def _select(self, allowance: "Allowance") -> "Allowance":
        """Return the part of an allowance that applies to this route.

        A limit that counts all costs stays, even if it does not limit this route.
        """
        is_held = partial(self.selector.selects, route=self.route)
        concurrency, caps = allowance.concurrency, allowance.caps
        return replace(
            allowance,
            limits=tuple([limit for limit in allowance.limits if limit.counts_all or is_held(limit)]),
            concurrency=concurrency if concurrency is not None and is_held(concurrency) else None,
            caps=caps if caps is not None and is_held(caps) else None,
        )

    def rank_reported(self, each: "AppliedLimit") -> int:
        """Return the order of a limit of reported costs: first limits that refuse, then limits that only count, then
        trials.
        """
        return 2 if each.is_shadow else 0 if self.selector.selects(each.limit, self.route) else 1

    @property
    def reads_prompts(self) -> bool:
        """True if a request must state its reserve before it is admitted."""
        return bool(self.token_budgets) or any(limit.reserve == "request" for _, limit in self.limits)

    @property
    def token_budgets(self) -> "list[KeyBudget]":
        """The budgets of a key that answers on this route are charged to when they state their usage."""
        if self.allowance is None or self.route.response_usage is None:
            return []
        return [
            quota
            for quota in self.allowance.quotas
            if isinstance(quota, KeyBudget)
            and not quota.is_of_money
            and MEASURES[self.meters[quota.meter].count].in_body is not None
        ]

    @property
    def request_most(self) -> int | None:
        """The highest cost of a request; None for any."""
        caps = None if self.allowance is None else self.allowance.caps
        return None if caps is None else caps.request

    @property
    def request_cap(self) -> int | None:
        """The highest cost of a request, if requests of this route cost more."""
        most = self.request_most
        return most if most is not None and self.route.cost > most else None


class RouteLimits:
    """All limits of one route binding. Limits by address are applied to each address separately."""

    __slots__ = ("_claims", "_customer", "_digest", "_key", "terms")

    def __init__(
        self,
        terms: LimitTerms,
        customer: bytes | None,
        key: "CustomerKey | None" = None,
        claims: Mapping[str, bytes] = NO_CLAIMS,
    ) -> None:
        """`customer` is None for anonymous requests. `claims` belong to a token."""
        self.terms = terms
        self._customer, self._key, self._claims = customer, key, claims
        self._digest = b""

    @property
    def key(self) -> bytes:
        """The digest of the key; empty for anonymous requests."""
        return self._digest if self._key is None else self._key.digest

    def release_key(self) -> None:
        """Hold the digest alone: the key may refer to its bindings, and a binding that refers to these limits would
        be free only at a garbage collection.
        """
        self._digest, self._key = self.key, None

    def build_limit_set(self, address: bytes = b"", names: Mapping[EndUser, bytes] = NO_NAMES) -> LimitSet:
        """Return the limits for an end user and for an address, which matters if a limit is `by_address`."""
        if self.terms.plain is not None:
            return self._build_plain_set()
        allowance, tables = self.terms.allowance, self.terms.tables
        held = self.apply_limits(address, names)
        charged = [each for each in held if not (each.is_shadow or each.is_reported or each.limit.of)]
        name, scope, subject = self._resolve_subject("customer", address)
        table: Policies = getattr(tables, name)
        slots: list[ConcurrencyLimit | BudgetReservation] = []
        quotas: list[Quota] = []
        metered: dict[str, tuple[Quota | UnitLimit, ...]] = {}
        credits, credits_gate = None, None
        totals: list[Total | None] = []
        if allowance is not None:
            if allowance.concurrency is not None:
                slots.append(table.get_concurrency(concurrency_rule(allowance.concurrency.max, scope), subject))
            # Anonymous quotas are counted in the table of addresses, so that a flood of addresses takes no payer's row.
            counting = tables.addresses if self._customer is None else tables.quotas
            quotas, metered = self._get_quotas(allowance, counting, subject)
            reservations = [*self._reserve_budgets(quotas)]
            totals = [*map(table.total, slots), *map(counting.total, quotas)]
            totals += map(tables.customers.total, reservations)
            slots += reservations
            if allowance.burst_credits is not None:
                rule = credits_rule(allowance.burst_credits, scope)
                credits = table.get_policy(rule, subject, self.terms.route.cost)
                credits_gate = table.gate(rule, subject, credits_sync(allowance))
        units = self._get_unit_limits(held, metered, totals)
        policies = self._policies(charged)
        by_rank: tuple[list[AppliedLimit], ...] = ([], [], [])
        for each in held:
            if each.is_reported:
                by_rank[self.terms.rank_reported(each)].append(each)
        shadows = [each for each in held if each.is_shadow and not each.is_reported]
        reported, spending, trials = map(self._policies, by_rank)
        shadow_policies = self._policies(shadows)
        # No request asks at their gates.
        later = [*by_rank[0], *by_rank[1], *shadows, *by_rank[2]]
        reporting_gates = {
            **dict(self._gates(later, (*reported, *spending, *shadow_policies, *trials), "eventual")),
            **{unit.policy: unit.gate for unit in units if unit.gate is not None},
        }
        if (most := self.terms.request_cap) is not None:
            quotas.append(RequestCap(self.terms.route.cost, most))
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

    def _build_plain_set(self) -> LimitSet:
        """Return the set if no address and no end user matters, and there are only rates and concurrency."""
        terms, customer = self.terms, self._customer
        assert customer is not None
        policies: list[Policy] = []
        gates: list[tuple[Policy, Gate]] = []
        for table, rule, cost, sync in terms.plain_rates:
            scope = rule.scope
            subject = customer if scope == "customer" else self._resolve_subject(scope, b"")[2]
            policy = table.get_policy(rule, subject, cost)
            policies.append(policy)
            if table.shares and (gate := table.gate(rule, subject, sync)) is not None:
                gates.append((policy, gate))
        slots: tuple[ConcurrencyLimit, ...] = ()
        totals: tuple[Total, ...] = ()
        if terms.plain_slots is not None:
            table = terms.tables.customers
            slot = table.get_concurrency(terms.plain_slots, customer)
            slots = (slot,)
            if table.shares and (total := table.total(slot)) is not None:
                totals = (total,)
        if gates or totals:
            return LimitSet(tuple(policies), slots=slots, gates=tuple(gates), totals=totals)
        return LimitSet(tuple(policies), traits=terms.plain_traits, slots=slots)

    def _get_unit_limits(
        self,
        held: "list[AppliedLimit]",
        metered: "dict[str, tuple[Quota | UnitLimit, ...]]",
        totals: "list[Total | None]",
    ) -> "list[UnitLimit]":
        """Return the limits of units. Add them to the charges of meters and the reports to other hosts."""
        applied: list[UnitLimit] = []
        for each in held:
            if each.limit.of is not None:
                table: Policies = getattr(self.terms.tables, each.table)
                under_way = replace(each.rule, algorithm="concurrency", depth=0)
                units = table.get_unit_limit(
                    each.rule, under_way, each.subject, each.limit.reserved, self._build_request_reserve(each.limit)
                )
                metered[units.meter] = (*metered.get(units.meter, ()), units)
                totals.append(table.total(units))
                applied.append(units)
        return applied

    def _build_request_reserve(self, limit: "Limit") -> RequestReserve | None:
        """Return the reserve of a request by its own statement; None if each request reserves an equal amount."""
        if limit.reserve != "request" or limit.of is None:
            return None
        return RequestReserve(*PARTS[self.terms.meters[limit.of].count], limit.reserved, limit.reserved_most)

    def _reserve_budgets(self, quotas: "Iterable[Quota]") -> "Iterator[BudgetReservation]":
        """Yield the reservations of a request in the budgets of its key; `quotas` have their counts."""
        for budget in self.terms.token_budgets:
            count = next((quota for quota in quotas if quota.name == budget.name and quota.hard), None)
            parts = PARTS.get(self.terms.meters[budget.meter].count)
            if count is not None and parts is not None:
                rule = Rule(budget.name, budget.included, 0.0, "key", "concurrency")
                slots = self.terms.tables.customers.get_concurrency(rule, budget.subject.encode()).counts
                reserve = RequestReserve(*parts, OUTPUT_RESERVED, budget.included)
                yield BudgetReservation(count, slots, reserve, budget.included)

    def _get_quotas(
        self, allowance: "Allowance", counting: Policies, subject: bytes
    ) -> "tuple[list[Quota], dict[str, tuple[Quota | UnitLimit, ...]]]":
        """Return the quotas of a subject, and by meter the quotas that are charged its later counts."""
        quotas: list[Quota] = []
        metered: dict[str, tuple[Quota | UnitLimit, ...]] = {}
        for quota in allowance.quotas:
            if quota.per is None:
                continue  # A quota of existing things, for example seats: the collector enforces it.
            budget = quota if isinstance(quota, KeyBudget) else None
            is_of_money = budget is not None and budget.is_of_money
            meter = SPEND_METER if is_of_money else self.terms.meters[quota.meter]
            is_fed = feeds_meter(meter, self.terms.route, self.terms.selector)
            is_held = holds_route(quota, meter, self.terms.route, self.terms.selector)
            amount = compute_request_amount(meter.count, self.terms.route.cost) if is_fed else 0
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
                # A count is charged once, by its first quota. The others compare it with their own amounts.
                policy.cost = 0
            elif is_counted_later:
                metered[quota.meter] = (*metered.get(quota.meter, ()), policy)
            quotas.append(policy)
        return quotas, metered

    def _gates(
        self, held: "list[AppliedLimit]", policies: tuple[Policy, ...], mode: "Mode | None" = None
    ) -> "Iterator[tuple[Policy, Gate]]":
        """Yield the gates before limits that other hosts share. `mode` replaces the mode of each limit."""
        for each, policy in zip(held, policies, strict=True):
            table: Policies = getattr(self.terms.tables, each.table)
            gate = table.gate(each.rule, each.subject, mode or each.limit.sync)
            if gate is not None:
                yield policy, gate

    def apply_limits(self, address: bytes = b"", names: Mapping[EndUser, bytes] = NO_NAMES) -> "list[AppliedLimit]":
        """Return the limits as they apply to this address and end user, the allowance's first."""
        return apply_limits(self.terms.limits, lambda limit: self._resolve_limit(limit, address, names))

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
            table: Policies = getattr(self.terms.tables, each.table)
            # Each request counts once in limits of the route.
            cost = self.terms.route.cost if each.is_own else 1
            policies.append(table.get_policy(each.rule, each.subject, cost, is_late=each.is_reported))
        return tuple(policies)

    def _resolve_subject(self, scope: str, address: bytes) -> "CountedSubject":
        return resolve_subject(scope, self.terms.route.label, self._customer, self.key, address)


CountedSubject = tuple[str, str, bytes]
"""The name of a table, and the scope and subject that are counted in it."""


def resolve_subject(
    scope: str, route: str, customer: bytes | None, key: bytes = b"", address: bytes = b""
) -> CountedSubject:
    """Return the subject that a limit of this scope counts requests by on a route.

    `customer` is None for anonymous requests.
    """
    label = route.encode()
    if scope == "route":
        return "customers", scope, label
    if customer is None:
        # A request without a key is counted by address.
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
    """Return the subject that counts an end user of this name within another subject."""
    digest = blake2b(digest_size=END_USER_BYTES)
    for part in (subject[1].encode(), subject[2], place.encode(), label.lower().encode(), name):
        digest.update(b"%d:%b" % (len(part), part))
    return "end_users", "end_user", digest.digest()


class AppliedLimit(NamedTuple):
    """A limit as it applies to a subject on a route."""

    limit: "Limit"
    is_own: bool
    """True if it belongs to the customer's allowance, and not only to the route."""
    rule: Rule
    table: str
    subject: bytes

    @property
    def is_shadow(self) -> bool:
        """True if it refuses no request."""
        return self.limit.mode == "shadow"

    @property
    def is_reported(self) -> bool:
        """True if it is charged the cost that answers report, and not at admission."""
        return self.limit.cost_header is not None


def apply_limits(limits: "Iterable[tuple[bool, Limit]]", by: "Callable[[Limit], CountedSubject]") -> list[AppliedLimit]:
    """Apply these limits; each comes with True if it belongs to the allowance. `by` maps a limit to its subject.

    A limit of the allowance and one of the route may differ only in their counts. Then they share one row, and the
    lower one applies. Limits of the allowance come first.
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


@lru_cache(RULES_MAX)
def concurrency_rule(limit: int, scope: str) -> Rule:
    """Return the rule of a concurrency limit."""
    return Rule(CONCURRENCY, limit, 0.0, scope, "concurrency")


def credits_rule(credits: "BurstCredits", scope: str) -> Rule:
    """Return the rule of burst credits."""
    return Rule(CREDITS, credits.earn.count, credits.earn.seconds, scope, "burst_credits", depth=credits.max)


def credits_sync(allowance: "Allowance") -> "Mode":
    """Return the sync mode of an allowance's burst credits: the strictest mode of the limits that they pay for.

    Bounded without any.
    """
    modes = {limit.sync for limit in allowance.limits if limit.mode == "enforce" and limit.counts_requests}
    return next((sync for sync in ("strict", "bounded", "eventual") if sync in modes), "bounded")
