"""The soak's judge: what it must find fault with, as a soak that goes well never shows that it would."""

from collections import Counter
from dataclasses import replace

import pytest

from loadtest.soak.account import Account, How, Seen, Trouble
from loadtest.soak.course import Calm
from loadtest.soak.fault import Deed, Fault, Held
from loadtest.soak.kinds import COMER, DETOUR, KINDS, LIMITED
from loadtest.soak.report import report
from loadtest.soak.tally import ODD
from loadtest.soak.verdict import GRACE, Outcome, explanation
from loadtest.soak.watch import Vitals, Watch, trend

AT = 10.0
FAULTS = {
    deed: Fault(deed, AT, AT + 1, frozenset({4000}) if "worker" in deed else frozenset(), frozenset({"a"}))
    for deed in Deed
}


def trouble(how: How, *, kind: str = "keep", port: int = 4000, endpoint: str = "a", status: int = 0) -> Trouble:
    """A request that went wrong half a second after something began."""
    return Trouble(kind, how, AT, AT + 0.5, port, endpoint, status)


SAYS = {
    (Deed.KILL_WORKER, "reset"): trouble("reset"),
    (Deed.KILL_WORKER, "closed"): trouble("closed"),
    (Deed.HANG_WORKER, "cut"): trouble("cut"),
    (Deed.RESTART, "cut"): trouble("cut"),
    (Deed.RESTART, "502 to a POST"): trouble("status", kind="sized", status=502),
    (Deed.OUTAGE, "502 to a GET"): trouble("status", status=502),
    (Deed.OUTAGE, "503"): trouble("status", status=503),
    (Deed.ROLL, "told"): trouble("told", kind="socket"),
    (Deed.KILL_SUPERVISOR, "told"): trouble("told", kind="socket"),
}


@pytest.mark.parametrize(("deed", "what"), SAYS, ids=str)
def test_a_fault_explains_its_own_kind_of_trouble(deed: Deed, what: str) -> None:
    assert explanation(SAYS[deed, what], [FAULTS[deed]]) is FAULTS[deed]


@pytest.mark.parametrize(("deed", "what"), SAYS, ids=str)
def test_before_its_time_and_after_it_a_fault_explains_nothing(deed: Deed, what: str) -> None:
    for at in (AT - 0.01, AT + 1 + GRACE + 0.01):
        assert explanation(replace(SAYS[deed, what], at=at), [FAULTS[deed]]) is None


@pytest.mark.parametrize("how", ["refused", "wrong", "timeout", "unconnected"])
def test_nothing_explains_a_refused_connection_or_a_wrong_answer(how: How) -> None:
    assert explanation(trouble(how, port=1), list(FAULTS.values())) is None


@pytest.mark.parametrize("how", ["reset", "closed", "cut", "unconnected"])
def test_a_lost_worker_explains_its_own_connections_only(how: How) -> None:
    faults = [FAULTS[Deed.KILL_WORKER], FAULTS[Deed.HANG_WORKER]]
    assert explanation(trouble(how), faults) is not None
    assert explanation(trouble(how, port=4001), faults) is None


def test_a_lost_endpoint_explains_its_own_answers_and_what_is_not_sent_twice() -> None:
    faults = [FAULTS[Deed.RESTART]]
    assert explanation(trouble("cut", endpoint="b"), faults) is None
    assert explanation(trouble("cut", endpoint=""), faults) is None
    assert explanation(trouble("status", status=502), faults) is None
    assert explanation(trouble("status", kind="sized", status=503), faults) is None
    assert explanation(trouble("reset", endpoint="a"), faults) is None


@pytest.mark.parametrize("deed", [Deed.RELOAD, Deed.BAD_RELOAD, Deed.ROLL, Deed.KILL_SUPERVISOR])
def test_reloads_and_rolling_replacements_and_dead_supervisors_explain_no_error(deed: Deed) -> None:
    for each in SAYS.values():
        if each.how != "told":
            assert explanation(each, [FAULTS[deed]]) is None


# ---- sums


def outcome() -> Outcome:
    """A soak in which everything held."""
    account = Account(seen={COMER: [Seen(1, 1.1, 200, True)], DETOUR: [Seen(21, 21.1, 404, False)]})
    for name in KINDS:
        account.asked[name] = account.answered[name] = account.whole[name] = 10
    account.asked[LIMITED] += 5
    account.refused[LIMITED] = 5
    watch = Watch.__new__(Watch)
    watch.readings, watch.falls, watch.failures, watch.series = 100, [], [], 1
    watch.connections = dict.fromkeys(range(100), 40.0)
    watch.ended_with, watch.began_anew = Counter(), Counter()
    watch.roles = {1: "worker", 2: "supervisor"}
    watch.vitals = {pid: [Vitals(look, float(look), 50, 30_000) for look in range(100)] for pid in watch.roles}
    held = {name: Held([(0.0, True), (20.0, None), (21.0, False)]) for name in (COMER, DETOUR)}
    counted = dict.fromkeys(KINDS, 10)
    given = {**counted, ODD: 0}
    return Outcome(
        1, 100.0, account, list(FAULTS.values()), held, counted, 10.0 * len(KINDS), given, 0.0, 5.0, watch, Calm(10, 90)
    )


def complaint(of: Outcome) -> str:
    """The only one."""
    (found,) = of.complaints()
    return found


def test_a_soak_in_which_everything_held_has_no_complaints_and_a_report() -> None:
    assert outcome().complaints() == []
    assert "Everything held." in report(outcome())


def test_an_answer_that_was_not_counted_is_found() -> None:
    wrong = outcome()
    wrong.counted["keep"] -= 1
    wrong.given["keep"] -= 1
    wrong.metered -= 1
    assert complaint(wrong) == "keep: answered 10, lost 0, but counted 9"


def test_a_count_without_an_answer_is_found_where_nothing_was_lost() -> None:
    wrong = outcome()
    wrong.counted["keep"] += 1
    wrong.given["keep"] += 1
    wrong.metered += 1
    assert complaint(wrong) == "keep: answered 10, lost 0, but counted 11"
    wrong.account.asked["keep"] += 1  # one that nobody answered
    assert wrong.complaints() == []


def test_an_answer_given_twice_is_found_unless_the_request_may_be_sent_twice() -> None:
    for name in ("keep", "sized"):
        wrong = outcome()
        wrong.given[name] += 1
        assert complaint(wrong) == f"{name}: counted 10, lost 0, sent again 0, but given 11"
    wrong.retries = 1
    assert complaint(wrong) == "sized: counted 10, lost 0, sent again 0, but given 11"


def test_fewer_answers_given_than_counted_are_found() -> None:
    wrong = outcome()
    wrong.given["keep"] -= 1
    assert complaint(wrong).startswith("keep: counted 10")


def test_sums_that_differ_between_listings_are_found() -> None:
    wrong = outcome()
    wrong.metered -= 1
    assert "/metrics counts" in complaint(wrong)
    wrong = outcome()
    wrong.limited += 1
    assert "refused by a limit" in complaint(wrong)
    wrong = outcome()
    wrong.given[ODD] = 1
    assert "no client can have made" in complaint(wrong)


@pytest.mark.parametrize(
    ("seen", "good"),
    [
        (Seen(19.9, 20.1, 404, False), True),
        (Seen(20.1, 21.1, 200, True), True),
        (Seen(19.8, 19.9, 404, False), False),
        (Seen(21.0, 21.1, 200, True), False),
    ],
)
def test_a_route_is_there_until_it_is_taken_out_and_then_no_more(seen: Seen, good: bool) -> None:
    judged = outcome()
    judged.account.seen[DETOUR].append(seen)
    assert (judged.complaints() == []) is good


def test_counters_that_fall_and_needless_exemptions_are_found() -> None:
    wrong = outcome()
    wrong.watch.falls.append("x fell from 2 to 1")
    assert complaint(wrong) == "x fell from 2 to 1"
    wrong = outcome()
    wrong.watch.ended_with["edge_worker_restarts_total"] = 1
    assert "need not be exempt" in complaint(wrong)
    wrong.watch.began_anew["edge_worker_restarts_total"] = 1
    assert wrong.complaints() == []


def test_what_was_not_done_or_not_looked_at_is_found() -> None:
    wrong = outcome()
    wrong.faults.pop()
    assert complaint(wrong) == f"not done: {Deed.OUTAGE}"
    wrong = outcome()
    wrong.watch.readings = 3
    assert complaint(wrong) == "only 3 looks at the counters"


def test_processes_that_grow_are_found() -> None:
    wrong = outcome()
    wrong.watch.vitals[1] = [Vitals(look, float(look), 50, 30_000 + 300 * look) for look in range(100)]
    assert "worker 1 grew from" in complaint(wrong)
    wrong = outcome()
    wrong.watch.vitals[1] = [Vitals(look, float(look), 50 + look, 30_000) for look in range(100)]
    assert "descriptors beside connections" in complaint(wrong)
    wrong.watch.connections = {look: float(look) for look in range(100)}
    assert wrong.complaints() == []
    wrong = outcome()
    wrong.watch.vitals[2][50] = Vitals(50, 50.0, 50, 1 << 18)
    assert "supervisor 2 held" in complaint(wrong)


def test_a_line_through_points_says_where_they_begin_and_end() -> None:
    line = trend([(0, 1.0), (1, 3.0), (2, 5.0)])
    assert (line.begin, line.end, line.growth) == pytest.approx((1, 5, 4))
