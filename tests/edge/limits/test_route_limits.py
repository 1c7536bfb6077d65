"""Admission by all kinds of limits at once. A witness process checks the counts before and after each decision."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from edgeproxy.edge.counters import columns
from edgeproxy.edge.counters import layout as at
from edgeproxy.edge.counters.cells import width_us
from edgeproxy.edge.counters.layout import Layout
from edgeproxy.edge.counters.rows import LimitTable
from edgeproxy.edge.limits.admission import admit, charge_reported_costs, spend_credits
from edgeproxy.edge.limits.bucket import ROUNDING_TOKENS
from edgeproxy.edge.limits.denial import compute_denial, find_impossible_costs
from edgeproxy.edge.limits.limit_set import LimitSet
from edgeproxy.edge.limits.policies import Policies
from edgeproxy.edge.limits.policy import Policy
from edgeproxy.edge.limits.quota import Quota
from edgeproxy.edge.limits.rule import Rule
from tests.edge.limits.reference import ExactBucket, ExactWindow
from tests.support.tables import fresh, make, opened

CUSTOMERS = Layout("customers", 20, 8, ring=32, cells=28, width=at.LONE_HEAD_WORDS, parts=at.HEADS_APART)
QUOTAS = Layout("quotas", 5, 8, ring=1, cells=1, width=at.HEAD_WORDS)
START = 51_000_000.0
SUBJECT = b"acme"
UTC = ZoneInfo("UTC")


@dataclass
class Plan:
    """The limits under test: rules with their costs, slots and quotas."""

    policies: list[tuple[Rule, int]] = field(default_factory=list)
    bought_off: int = 0
    credits: tuple[Rule, int] | None = None
    reported: list[tuple[Rule, int]] = field(default_factory=list)
    shadows: list[tuple[Rule, int]] = field(default_factory=list)
    trials: list[tuple[Rule, int]] = field(default_factory=list)
    slots: list[Rule] = field(default_factory=list)
    quotas: list[tuple[str, int, bool, str]] = field(default_factory=list)
    """Name, included amount, whether it is hard, and the key of the requests that it counts."""


class Process:
    """A process on a column of its own that decides or observes."""

    def __init__(self, customers: Path, quotas: Path, plan: Plan) -> None:
        self.files = [opened(customers), opened(quotas)]
        column = columns.acquire_column(self.files)
        policies, periods = (Policies(LimitTable(file, column)) for file in self.files)

        def made(rules: list[tuple[Rule, int]]) -> tuple[Policy, ...]:
            return tuple([policies.get_policy(rule, SUBJECT, cost) for rule, cost in rules])

        self.terms = LimitSet(
            made(plan.policies),
            plan_policies=plan.bought_off,
            credits=made([plan.credits])[0] if plan.credits else None,
            reported=made(plan.reported),
            shadows=made(plan.shadows),
            trials=made(plan.trials),
            slots=tuple([policies.get_concurrency(rule, SUBJECT) for rule in plan.slots]),
            quotas=tuple(
                [
                    periods.get_quota(name, included, "day", UTC, SUBJECT, hard=hard, when=when)
                    for name, included, hard, when in plan.quotas
                ]
            ),
        )

    def kill(self) -> None:
        """End the process as `kill -9` does."""
        for file in self.files:
            file.close()

    def bounds(self) -> list[Policy | Quota]:
        """Return all limits that have a remaining amount, in a fixed order."""
        terms = self.terms
        credits = () if terms.traits.credits is None else (terms.traits.credits,)
        return [
            *terms.policies,
            *credits,
            *terms.traits.other_rates.reported,
            *terms.traits.other_rates.shadows,
            *terms.traits.other_rates.trials,
            *terms.traits.quotas,
        ]

    def lefts(self, now: float) -> list[int]:
        """Return the remaining amount of each limit in `bounds`."""
        return [bound.left(now) for bound in self.bounds()]

    def free(self, now: float) -> list[bool]:
        """Return for each concurrency limit whether a slot is free."""
        return [slot.retry_after(now) == 0 for slot in self.terms.slots]


ALGORITHMS = ("sliding_window", "token_bucket", "hybrid")


def rule(name: str, limit: int, depth: int, algorithm: str = "sliding_window", mode: str = "enforce") -> Rule:
    # The windows are short, so that the steps outlast them. Rates are whole tokens a second, so that levels are exact.
    seconds = {"token_bucket": 1.0, "burst_credits": 1.0}.get(algorithm, 4.0)
    return Rule(name, limit, seconds, "customer", algorithm, mode, depth)


RULED = st.tuples(st.integers(1, 8), st.integers(1, 6), st.sampled_from(ALGORITHMS), st.integers(1, 3))


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Draw a plan. Each of its limits has another scope, so that each has a row of its own."""
    plan = Plan()
    scopes = iter(("customer", "key", "ip", "route", "customer_route", "guard"))

    def ruled(count: int, mode: str = "enforce") -> list[tuple[Rule, int]]:
        made = []
        for limit, depth, algorithm, cost in draw(st.lists(RULED, max_size=count)):
            scope = next(scopes)
            one = rule(f"{scope}-limit", 4 * limit if algorithm == "hybrid" else limit, depth, algorithm, mode)
            made.append((Rule(one.name, one.limit, one.window, scope, algorithm, mode, one.depth), cost))
        return made

    plan.policies = ruled(2)
    plan.bought_off = draw(st.integers(0, len(plan.policies)))
    plan.reported = ruled(1)
    plan.shadows = ruled(1, "shadow")
    plan.trials = ruled(1, "shadow")
    if draw(st.booleans()):
        plan.credits = (rule("credits", draw(st.integers(1, 3)), draw(st.integers(1, 6)), "burst_credits"), 2)
    for number in range(draw(st.integers(0, 2))):
        scope = ("customer", "ip")[number]
        plan.slots.append(Rule(f"slots-{scope}", draw(st.integers(1, 4)), 0.0, scope, "concurrency"))
    for name in ("requests-day", "tokens-day")[: draw(st.integers(0, 2))]:
        plan.quotas.append((name, draw(st.integers(0, 12)), draw(st.booleans()), draw(st.sampled_from(("a", "b")))))
    return plan


STEPS = st.lists(
    st.tuples(
        st.sampled_from(("ask", "ask", "ask", "ask", "over", "over", "shed", "wait")),
        st.integers(0, 1),
        st.sampled_from((0.5, 1.0, 1.0, 2.0, 7.0)),
        st.lists(st.one_of(st.none(), st.integers(0, 9)), min_size=3, max_size=3),
        st.sampled_from(("", "a", "b", "ab")),
    ),
    max_size=50,
)


@given(plan=plans(), steps=STEPS)
def test_admission_charges_all_limits_or_none(
    plan: Plan, steps: list[tuple[str, int, float, list[int | None], str]]
) -> None:
    with fresh(CUSTOMERS) as customers, fresh(QUOTAS) as quotas:
        Schedule(lambda: Process(customers, quotas, plan)).run(steps)


class Schedule:
    """Two processes that decide, and a witness that observes the effects."""

    def __init__(self, another: Callable[[], Process]) -> None:
        self.another = another
        self.asked, self.witness = [another(), another()], another()
        self.under_way: list[list[float]] = [[], []]
        """For each process, the admission times of its requests in progress."""
        self.now = START

    def run(self, steps: list[tuple[str, int, float, list[int | None], str]]) -> None:
        for what, who, seconds, costs, counts in steps:
            if what == "wait":
                self.now += seconds
            elif what == "ask":
                self.ask(who)
            elif what == "shed":
                self.shed(who)
            elif self.under_way[who]:
                self.over(who, costs, counts)

    def ask(self, who: int) -> None:
        now, process = self.now, self.asked[who]
        terms = process.terms
        before, free = self.witness.lefts(now), self.witness.free(now)
        refusing, bought, refused_by = self.judged(before, free)
        refused, shown, left, noted = admit(terms, now)
        after = self.witness.lefts(now)
        assert refused == bool(refusing)
        rates = (*terms.policies, *terms.traits.other_rates.reported)
        assert shown in rates if rates else shown is None
        if refused:
            assert after == before
            assert self.witness.free(now) == free
            assert noted is None
            if shown is not None:
                assert left == max(0, before[process.bounds().index(shown)])
            self.compute_denial(who, refused_by)
            return
        self.under_way[who].append(now)
        expected = list(before)
        hit = []
        charged = [
            *(policy for policy in terms.policies if policy not in bought),
            *([terms.traits.credits] if bought else []),
        ]
        for place, bound in enumerate(process.bounds()):
            if isinstance(bound, Quota):
                expected[place] -= 1
            elif (bound in terms.traits.other_rates.shadows and before[place] < bound.cost) or (
                bound in terms.traits.other_rates.trials and before[place] < 1
            ):
                hit.append(bound)
            elif bound in charged or bound in terms.traits.other_rates.shadows:
                expected[place] -= bound.cost
        assert after == expected
        if shown is not None:
            assert left == max(0, after[process.bounds().index(shown)])
            # The shown limit is the first with the least room. Room is negative if credits paid for the request.
            room = [before[process.bounds().index(rate)] - rate.cost for rate in terms.policies]
            room += [before[process.bounds().index(rate)] - 1 for rate in terms.traits.other_rates.reported]
            assert shown is rates[room.index(min(room))]
        over = [quota for place, quota in enumerate(process.bounds()) if isinstance(quota, Quota) and before[place] < 1]
        if hit or over or bought:
            assert noted is not None
            assert (set(noted.shadows), list(noted.over), bool(noted.paid)) == (set(hit), over, bool(bought))
        else:
            assert noted is None

    def judged(self, before: list[int], free: list[bool]) -> tuple[list[object], list[object], set[str]]:
        """Return the limits that refuse, the limits that credits pay for, and the names of the former."""
        terms = self.asked[0].terms
        left = dict(zip(self.asked[0].bounds(), before, strict=True))
        lacking = [policy for policy in terms.policies if left[policy] < policy.cost]
        of_plan = [policy for policy in lacking if policy in terms.policies[: terms.traits.plan_policies]]
        refusing: list[object] = [policy for policy in lacking if policy not in of_plan]
        credits = terms.traits.credits
        affordable = credits is not None and left[credits] >= credits.cost
        if of_plan and not affordable:
            refusing += of_plan
        refusing += [policy for policy in terms.traits.other_rates.reported if left[policy] < 1]
        refusing += [quota for quota in terms.traits.quotas if quota.hard and left[quota] < 1]
        refusing += [slot for slot, is_free in zip(terms.slots, free, strict=True) if not is_free]
        names = {one.name for one in refusing}  # type: ignore[attr-defined]
        names_of = self.names(of_plan)
        return refusing, names_of if of_plan and not refusing else [], names

    def names(self, policies: list[Policy]) -> list[object]:
        """Return these policies as objects of both processes, because callers compare with either."""
        places = [self.asked[0].terms.policies.index(policy) for policy in policies]
        return [process.terms.policies[place] for process in self.asked for place in places]

    def compute_denial(self, who: int, refused_by: set[str]) -> None:
        """Check that a refusal names all refusing limits, and that all rates have room after its `retry_after`."""
        terms = self.asked[who].terms
        violated, retry_after = compute_denial(terms, self.now)
        assert {one.name for one in violated} == refused_by
        if find_impossible_costs(terms):
            assert retry_after == 0
            return
        assert retry_after > 0
        assert all(retry_after >= one.retry_after(self.now) for one in (*terms.traits.quotas, *terms.slots))
        if any(policy.cost > policy.most for policy in terms.policies):
            return
        # A new witness reads the future counts and ends, so that the other processes keep the present time.
        later = self.now + retry_after
        witness = self.another()
        credits = witness.terms.traits.credits
        for place, policy in enumerate(witness.terms.policies):
            bought = (
                place < witness.terms.traits.plan_policies
                and credits is not None
                and credits.left(later) >= credits.cost
            )
            assert bought or policy.left(later) >= policy.cost
        assert all(policy.left(later) >= 1 for policy in witness.terms.traits.other_rates.reported)
        witness.kill()

    def over(self, who: int, costs: list[int | None], counts: str) -> None:
        """End a request: charge reported costs, release its slots and refund quotas that do not count it."""
        process, now = self.asked[who], self.now
        terms = process.terms
        before = self.witness.lefts(now)
        reported = [*terms.traits.other_rates.reported, *terms.traits.other_rates.trials]
        said = charge_reported_costs(terms, now, costs[: len(reported)])
        charged = {policy: policy.cost if cost is None else cost for policy, cost in zip(reported, costs, strict=False)}
        admitted = self.under_way[who].pop()
        expected = list(before)
        for place, bound in enumerate(process.bounds()):
            if bound in terms.traits.other_rates.reported or (
                bound in terms.traits.other_rates.trials and before[place] >= 1
            ):
                expected[place] -= charged[bound]  # type: ignore[index]
            if bound in terms.traits.other_rates.reported:
                assert said[bound] == max(0, expected[place])  # type: ignore[index]
            if isinstance(bound, Quota) and bound.when not in counts and admitted // 86400 == now // 86400:
                expected[place] += 1
        assert set(said) == set(terms.traits.other_rates.reported)
        terms.release()
        terms.refund(admitted, lambda when: when in counts)
        assert self.witness.lefts(now) == expected
        held = len(self.under_way[0]) + len(self.under_way[1])
        assert self.witness.free(now) == [held < slot.limit for slot in terms.slots]

    def shed(self, who: int) -> None:
        """Spend credits for a request while the edge sheds load."""
        process, now = self.asked[who], self.now
        terms = process.terms
        before = self.witness.lefts(now)
        bought = spend_credits(terms, now)
        expected = list(before)
        if terms.traits.credits is None or terms.traits.plan_policies:
            assert not bought
        else:
            place = process.bounds().index(terms.traits.credits)
            assert bought == (before[place] >= terms.traits.credits.cost)
            expected[place] -= terms.traits.credits.cost if bought else 0
        assert self.witness.lefts(now) == expected


# ---- the short and the long path of `admit`


@given(plan=plans(), waits=st.lists(st.sampled_from((0.0, 0.0, 0.5, 1.0, 3.0)), max_size=40))
def test_the_short_path_of_admission_decides_as_the_long_one(plan: Plan, waits: list[float]) -> None:
    assume(plan.policies or plan.slots)
    simple = Plan(policies=plan.policies, slots=plan.slots)
    at_length = Plan(policies=plan.policies, slots=plan.slots, quotas=[("requests-day", 1 << 40, False, "a")])
    with fresh(CUSTOMERS) as one, fresh(CUSTOMERS) as other, fresh(QUOTAS) as quotas:
        short, long = Process(one, quotas, simple), Process(other, quotas, at_length)
        assert short.terms.traits.simple
        assert not long.terms.traits.simple
        now = START
        for wait in waits:
            now += wait
            (refused, shown, left, noted), other_answer = admit(short.terms, now), admit(long.terms, now)
            assert (refused, left, noted) == (other_answer[0], other_answer[2], other_answer[3])
            name = None if other_answer[1] is None else other_answer[1].name
            assert (None if shown is None else shown.name) == name
            if refused:
                refusals = [compute_denial(process.terms, now) for process in (short, long)]
                assert len({wait for _, wait in refusals}) == 1
                assert len({tuple(one.name for one in violated) for violated, _ in refusals}) == 1


# ---- costs charged after the response


@given(
    algorithm=st.sampled_from(ALGORITHMS),
    limit=st.integers(1, 20),
    depth=st.integers(1, 10),
    steps=st.lists(
        st.tuples(st.one_of(st.just(0.0), st.floats(0, 30)), st.sampled_from((0, 1, 1, 2, 5, 30)), st.integers(0, 1)),
        max_size=60,
    ),
)
def test_debts_from_reported_costs_last_until_they_are_paid(
    algorithm: str, limit: int, depth: int, steps: list[tuple[float, int, int]]
) -> None:
    with fresh(CUSTOMERS) as customers, fresh(QUOTAS) as quotas:
        owed = Rule("tokens", limit, 10.0, "customer", algorithm, "enforce", depth)
        processes = [Process(customers, quotas, Plan(reported=[(owed, 1)])) for _ in range(2)]
        later = Process(customers, quotas, Plan(reported=[(owed, 1)]))
        pay(processes, later, owed, steps)


def pay(processes: list[Process], later: Process, owed: Rule, steps: list[tuple[float, int, int]]) -> None:
    window, bucket = ExactWindow(owed.limit, owed.window), ExactBucket(owed.limit, owed.window, owed.depth)
    exact: list[ExactWindow | ExactBucket] = [window] if owed.algorithm == "sliding_window" else [bucket]
    exact = [window, bucket] if owed.algorithm == "hybrid" else exact
    cell = width_us(owed.window, 28) / 1e6
    wide = 29 * cell - owed.window + 1e-6
    tolerance = 2 * ROUNDING_TOKENS
    now = START
    for seconds, cost, who in steps:
        now += seconds
        terms = processes[who].terms
        refused, _, left, _ = admit(terms, now)
        room = [one.has_room(now, 1, wide if one is window else tolerance) for one in exact]
        if refused:
            assert left == 0
            assert not all(room)
            moment = now + compute_denial(terms, now)[1]
            assert later.terms.traits.other_rates.reported[0].left(moment) >= 1
            passes = max(float(one.passes_at(now, 1)) for one in exact)
            assert moment <= passes + wide + 1 + tolerance / float(bucket.rate) + 1e-3
            continue
        assert all(one.has_room(now, 1, -1e-6 if one is window else -tolerance) for one in exact)
        # The response comes at once. Otherwise requests admitted in between would add to the debt.
        charge_reported_costs(terms, now, [cost])
        for one in exact:
            one.add(now, cost)


# ---- single cases


@pytest.fixture
def paths(tmp_path: Path) -> tuple[Path, Path]:
    return make(tmp_path, CUSTOMERS), make(tmp_path, QUOTAS)


Paths = tuple[Path, Path]


def test_limit_set_properties_follow_from_its_limits(paths: Paths) -> None:
    window = rule("basic", 5, 1)
    assert not Process(*paths, Plan()).terms.traits.applies
    only = Process(*paths, Plan(policies=[(window, 1)])).terms.traits
    assert (only.simple, only.applies, only.has_end_work) == (True, True, False)
    slots = Process(*paths, Plan(slots=[Rule("slots", 2, 0.0, algorithm="concurrency")])).terms.traits
    assert (slots.simple, slots.applies, slots.has_end_work) == (True, True, True)
    quotas = Process(*paths, Plan(quotas=[("requests-day", 5, True, "a")])).terms.traits
    assert (quotas.simple, quotas.applies, quotas.has_end_work) == (False, True, True)
    credits = Process(*paths, Plan(credits=(rule("credits", 1, 5, "burst_credits"), 1), bought_off=0)).terms.traits
    assert (credits.simple, credits.applies, credits.has_end_work) == (False, True, False)
    trials = Process(*paths, Plan(trials=[(rule("trial", 5, 1, mode="shadow"), 1)])).terms.traits
    assert (trials.simple, trials.applies, trials.has_end_work) == (False, True, True)


def test_credits_buy_passage_beyond_the_plan_but_not_beyond_the_route(paths: Paths) -> None:
    plan = Plan(
        policies=[(rule("plan", 2, 1), 1), (Rule("route", 6, 4.0, "route"), 1)],
        bought_off=1,
        credits=(rule("credits", 1, 3, "burst_credits"), 1),
    )
    process = Process(*paths, plan)
    terms = process.terms
    answers = [admit(terms, START) for _ in range(8)]
    assert [refused for refused, *_ in answers] == [False] * 5 + [True] * 3
    assert [noted is not None and noted.paid != () for *_, noted in answers[:5]] == [False] * 2 + [True] * 3
    assert [bound.left(START) for bound in process.bounds()] == [0, 1, 0]
    # The next credit comes sooner than room in the plan's limit.
    assert compute_denial(terms, START) == ((terms.policies[0],), 1)
    assert admit(terms, START + 1)[0] is False
    assert admit(terms, START + 1)[0] is True
    assert compute_denial(terms, START + 2)[0] == (terms.policies[1],)


def test_a_credit_limit_below_the_cost_of_a_request_is_ignored(paths: Paths) -> None:
    plan = Plan(
        policies=[(rule("plan", 10, 1), 10)], bought_off=1, credits=(rule("credits", 1, 5, "burst_credits"), 10)
    )
    terms = Process(*paths, plan).terms
    assert admit(terms, START)[0] is False
    assert admit(terms, START)[0] is True
    wait = compute_denial(terms, START)[1]
    assert wait >= 4
    assert admit(terms, START + wait)[0] is False
    assert not spend_credits(terms, START)


def test_burst_credits_of_an_unlimited_plan_admit_until_spent(paths: Paths) -> None:
    credits = (rule("credits", 1, 5, "burst_credits"), 2)
    terms = Process(*paths, Plan(credits=credits)).terms
    assert [spend_credits(terms, START) for _ in range(3)] == [True, True, False]
    assert spend_credits(terms, START + 1)
    limited = Process(*paths, Plan(policies=[(rule("plan", 2, 1), 1)], bought_off=1, credits=credits)).terms
    assert not spend_credits(limited, START + 60)
    assert not spend_credits(Process(*paths, Plan(policies=[(rule("plan", 2, 1), 1)])).terms, START)


def test_reported_costs_create_a_debt_that_refuses_requests(paths: Paths) -> None:
    bucket = rule("tokens", 10, 100, "token_bucket")
    terms = Process(*paths, Plan(reported=[(bucket, 1)])).terms
    for cost in (60, 39, 300):
        assert admit(terms, START)[0] is False
        charge_reported_costs(terms, START, [cost])
    refused, shown, left, _ = admit(terms, START)
    assert (refused, shown, left) == (True, terms.traits.other_rates.reported[0], 0)
    refusal = compute_denial(terms, START)
    assert refusal == (terms.traits.other_rates.reported, 30)
    assert admit(terms, START + 29)[0] is True
    assert admit(terms, START + 30)[0] is False


def test_a_response_without_a_reported_cost_is_charged_the_default_cost(paths: Paths) -> None:
    terms = Process(*paths, Plan(reported=[(rule("tokens", 100, 1), 7)])).terms
    assert charge_reported_costs(terms, START, [None]) == {terms.traits.other_rates.reported[0]: 93}
    assert charge_reported_costs(terms, START, [0]) == {terms.traits.other_rates.reported[0]: 93}
    assert charge_reported_costs(terms, START, [500]) == {terms.traits.other_rates.reported[0]: 0}
    assert terms.traits.other_rates.reported[0].left(START) == 93 - 500


def test_a_shadow_limit_refuses_no_request_and_notes_each_hit(paths: Paths) -> None:
    shadow = rule("shadow", 3, 1, mode="shadow")
    terms = Process(*paths, Plan(shadows=[(shadow, 2)])).terms
    answers = [admit(terms, START) for _ in range(3)]
    assert [(refused, shown) for refused, shown, *_ in answers] == [(False, None)] * 3
    assert [noted and noted.shadows for *_, noted in answers] == [
        None,
        terms.traits.other_rates.shadows,
        terms.traits.other_rates.shadows,
    ]
    # A shadow does not count requests that it would have refused.
    assert terms.traits.other_rates.shadows[0].left(START) == 1


def test_a_trial_is_charged_reported_costs_unless_it_would_have_refused(paths: Paths) -> None:
    trial = rule("trial", 5, 1, mode="shadow")
    terms = Process(*paths, Plan(trials=[(trial, 2)])).terms
    for cost, left in ((None, 3), (9, -6), (9, -6)):
        assert admit(terms, START)[0] is False
        assert charge_reported_costs(terms, START, [cost]) == {}
        assert terms.traits.other_rates.trials[0].left(START) == left
    noted = admit(terms, START)[3]
    assert noted is not None
    assert noted.shadows == terms.traits.other_rates.trials


def test_a_refusal_names_all_refusing_limits_and_the_longest_wait(paths: Paths) -> None:
    plan = Plan(
        policies=[
            (rule("window", 1, 1), 1),
            (rule("bucket", 1, 1, "token_bucket"), 1),
            (Rule("key", 9, 4.0, "key"), 1),
        ],
        slots=[Rule("slots", 1, 0.0, algorithm="concurrency")],
        quotas=[("requests-day", 1, True, "a")],
    )
    terms = Process(*paths, plan).terms
    assert terms.policies[2].most == 9
    assert admit(terms, START)[0] is False
    assert admit(terms, START)[0] is True
    window, bucket, _ = terms.policies
    assert window.retry_after(START) > bucket.retry_after(START) == 1
    refusal = compute_denial(terms, START)
    assert refusal == ((window, bucket, *terms.traits.quotas, *terms.slots), terms.traits.quotas[0].retry_after(START))


def test_a_refusal_without_a_possible_retry_has_no_retry_after(paths: Paths) -> None:
    plan = Plan(
        policies=[(rule("window", 5, 1), 6), (rule("bucket", 9, 1, "token_bucket"), 1)],
        quotas=[("requests-day", 0, True, "a"), ("requests-month", 0, False, "b")],
    )
    terms = Process(*paths, plan).terms
    assert admit(terms, START)[0] is True
    assert [impossible_cost.name for impossible_cost in find_impossible_costs(terms)] == ["window", "requests-day"]
    assert compute_denial(terms, START)[1] == 0


def test_refusal_without_a_remaining_cause_names_the_first_limit(paths: Paths) -> None:
    plan = Plan(
        policies=[(rule("basic", 2, 1), 1)],
        reported=[(Rule("tokens", 100, 4.0, "key"), 1)],
        quotas=[("requests-day", 5, True, "a")],
    )
    terms = Process(*paths, plan).terms
    assert compute_denial(terms, START) == (terms.policies, 1)
    alone = Process(*paths, Plan(quotas=[("requests-day", 5, True, "a")])).terms
    assert compute_denial(alone, START) == (alone.traits.quotas, 1)


def test_an_exhausted_hard_quota_refuses_and_nothing_is_charged(paths: Paths) -> None:
    plan = Plan(
        policies=[(rule("plan", 1, 1), 1)],
        bought_off=1,
        credits=(rule("credits", 1, 5, "burst_credits"), 1),
        reported=[(Rule("tokens", 100, 4.0, "key"), 1)],
        slots=[Rule("slots", 9, 0.0, algorithm="concurrency")],
        quotas=[("requests-day", 2, True, "a"), ("tokens-day", 9, True, "a")],
    )
    process = Process(*paths, plan)
    terms = process.terms
    assert [admit(terms, START)[0] for _ in range(4)] == [False, False, True, True]
    assert process.lefts(START) == [0, 4, 100, 0, 7]
    assert terms.slots[0].counts.used == 2
    # A limit that credits could pay for is not violated.
    assert compute_denial(terms, START)[0] == (terms.traits.quotas[0],)
    # Nothing is charged either if a reported limit is used up, or if the credits do not suffice.
    charge_reported_costs(terms, START, [200])
    terms.refund(START, lambda when: False)
    refused, shown, left, _ = admit(terms, START)
    assert (refused, shown, left) == (True, terms.traits.other_rates.reported[0], 0)
    assert process.lefts(START) == [0, 4, -100, 1, 8]
    charge_reported_costs(terms, START + 4, [None])
    terms.traits.credits.charge(6)  # type: ignore[union-attr]
    assert admit(terms, START)[0] is True
    assert process.lefts(START)[3:] == [1, 8]


def test_an_exceeded_soft_quota_is_noted(paths: Paths) -> None:
    terms = Process(*paths, Plan(quotas=[("requests-day", 1, False, "a"), ("tokens-day", 9, True, "a")])).terms
    assert admit(terms, START) == (False, None, 0, None)
    refused, _, _, noted = admit(terms, START)
    assert not refused
    assert noted is not None
    assert noted.over == (terms.traits.quotas[0],)
    # After a refund, the quota is no longer exceeded.
    terms.refund(START, lambda when: False)
    terms.refund(START, lambda when: True)
    assert [quota.left(START) for quota in terms.traits.quotas] == [0, 8]


def test_quotas_are_charged_by_their_meter(paths: Paths) -> None:
    process = Process(*paths, Plan())
    periods = Policies(LimitTable(process.files[1], 0))

    def of(meter: str, included: int, cost: int, *, hard: bool = True) -> Quota:
        name = f"{meter}-day"
        return periods.get_quota(name, included, "day", UTC, SUBJECT, hard=hard, when="answered", cost=cost)

    requests, cost, egress = of("requests", 9, 1), of("cost", 25, 10), of("egress", 5, 0)
    terms = LimitSet(quotas=(requests, cost, egress), metered={"egress": (egress,)})
    for used in (1, 2):
        assert admit(terms, START) == (False, None, 0, None)
        assert [quota.left(START) for quota in terms.traits.quotas] == [9 - used, 25 - 10 * used, 5]
    assert admit(terms, START)[0]
    assert compute_denial(terms, START)[0] == (cost,)
    terms.refund(START, lambda when: True)
    assert [quota.left(START) for quota in terms.traits.quotas] == [7, 5, 5]
    terms.refund(START, lambda when: False)
    assert [quota.left(START) for quota in terms.traits.quotas] == [8, 15, 5]
    for quota in terms.traits.metered["egress"]:
        quota.count(5, START)
    assert admit(terms, START)[0]
    assert compute_denial(terms, START)[0] == (egress,)
    soft = LimitSet(quotas=(of("cost", 25, 20, hard=False),))
    noted = admit(soft, START)[3]
    assert noted is not None
    assert noted.over == soft.traits.quotas
