"""The soak's judge finds each kind of fault. A soak that goes well never proves this."""

from collections import Counter
from dataclasses import replace

import pytest

from loadtest.soak import verdict
from loadtest.soak.account import Account, How, Seen, Trouble
from loadtest.soak.course import Calm
from loadtest.soak.fault import Fault, FaultKind, Held
from loadtest.soak.kinds import COMER, DETOUR, KINDS, LIMITED
from loadtest.soak.report import report
from loadtest.soak.sums import Sums
from loadtest.soak.tally import ODD
from loadtest.soak.verdict import GRACE, Outcome, explanation
from loadtest.soak.watch import Vitals, Watch, trend

AT = 10.0
FAULTS = {
    kind: Fault(kind, AT, AT + 1, frozenset({4000}) if "worker" in kind else frozenset(), frozenset({"a"}))
    for kind in FaultKind
}


def trouble(
    how: How, *, kind: str = "keep", port: int = 4000, endpoint: str = "a", status: int = 0, new: bool = False
) -> Trouble:
    """A request that went wrong half a second after something began."""
    return Trouble(kind, how, AT, AT + 0.5, port, endpoint, status, new=new)


SAYS = {
    (FaultKind.KILL_WORKER, "reset"): trouble("reset"),
    (FaultKind.KILL_WORKER, "closed"): trouble("closed"),
    (FaultKind.HANG_WORKER, "cut"): trouble("cut"),
    (FaultKind.RESTART, "cut"): trouble("cut"),
    (FaultKind.RESTART, "502 to a POST"): trouble("status", kind="sized", status=502),
    (FaultKind.OUTAGE, "502 to a GET"): trouble("status", status=502),
    (FaultKind.OUTAGE, "503"): trouble("status", status=503),
    (FaultKind.ROLL, "told"): trouble("told", kind="socket"),
    (FaultKind.KILL_SUPERVISOR, "told"): trouble("told", kind="socket"),
    (FaultKind.KILL_STEP, "told"): trouble("told", kind="socket"),
    (FaultKind.KILL_EDGE, "reset"): trouble("reset"),
    (FaultKind.TEAR, "refused"): trouble("refused"),
    (FaultKind.END, "refused"): trouble("refused"),
    (FaultKind.MOVE, "told"): trouble("told", kind="socket"),
}
DEADLY = {FaultKind.KILL_EDGE, FaultKind.TEAR, FaultKind.END, FaultKind.MOVE}
"""Nobody serves for a while."""
BREAKING = {*DEADLY, FaultKind.KILL_WORKER, FaultKind.HANG_WORKER, FaultKind.RESTART, FaultKind.OUTAGE}


@pytest.mark.parametrize(("kind", "what"), SAYS, ids=str)
def test_a_fault_explains_its_own_kind_of_trouble(kind: FaultKind, what: str) -> None:
    assert explanation(SAYS[kind, what], [FAULTS[kind]]) is FAULTS[kind]


@pytest.mark.parametrize(("kind", "what"), SAYS, ids=str)
def test_fault_explains_no_error_outside_its_time(kind: FaultKind, what: str) -> None:
    for at in (AT - 0.01, AT + 1 + GRACE + 0.01):
        assert explanation(replace(SAYS[kind, what], at=at), [FAULTS[kind]]) is None


@pytest.mark.parametrize("how", ["refused", "wrong", "timeout", "unconnected"])
def test_no_fault_explains_a_refused_connection_or_a_wrong_answer(how: How) -> None:
    others = [fault for kind, fault in FAULTS.items() if kind not in DEADLY]
    assert explanation(trouble(how, port=1), others) is None
    assert how == "refused" or how == "unconnected" or explanation(trouble(how), list(FAULTS.values())) is None


@pytest.mark.parametrize("how", ["reset", "closed", "cut", "unconnected"])
def test_a_lost_worker_explains_its_own_connections_only(how: How) -> None:
    faults = [FAULTS[FaultKind.KILL_WORKER], FAULTS[FaultKind.HANG_WORKER]]
    assert explanation(trouble(how), faults) is not None
    assert explanation(trouble(how, port=4001), faults) is None


def test_lost_endpoint_explains_only_its_own_and_unretried_answers() -> None:
    faults = [FAULTS[FaultKind.RESTART]]
    assert explanation(trouble("cut", endpoint="b"), faults) is None
    assert explanation(trouble("cut", endpoint=""), faults) is None
    assert explanation(trouble("status", status=502), faults) is None
    assert explanation(trouble("status", kind="sized", status=503), faults) is None
    assert explanation(trouble("reset", endpoint="a"), faults) is None


@pytest.mark.parametrize("how", ["reset", "closed", "cut", "status"])
def test_an_edge_that_is_ended_breaks_off_nothing(how: How) -> None:
    assert explanation(trouble(how), [FAULTS[FaultKind.END], FAULTS[FaultKind.MOVE]]) is None


@pytest.mark.parametrize(("idle", "is_explained"), [(0.6, False), (1.1, True)])
def test_a_drain_explains_the_end_of_a_connection_that_was_idle_too_long(idle: float, is_explained: bool) -> None:
    late = replace(trouble("closed", endpoint=""), idle=idle)
    assert (explanation(late, [FAULTS[FaultKind.ROLL]]) is not None) is is_explained
    assert explanation(replace(late, how="cut"), [FAULTS[FaultKind.ROLL]]) is None
    assert explanation(late, [FAULTS[FaultKind.RELOAD]]) is None


@pytest.mark.parametrize("migrates", [False, True])
def test_drain_explains_lost_handshakes_only_without_migration(migrates: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdict, "MIGRATES", migrates)
    roll = FAULTS[FaultKind.ROLL]
    for how in ("unconnected", "reset", "closed"):
        assert (explanation(trouble(how, new=True), [roll]) is roll) is not migrates
        assert explanation(trouble(how), [roll]) is None
    assert explanation(trouble("cut", new=True), [roll]) is None
    soak = outcome()
    soak.faults = [roll]
    soak.account.troubles = [trouble("reset", new=True)] * verdict.LOST
    assert (soak.unexplained() == []) is not migrates
    soak.account.troubles.append(trouble("reset", new=True))
    assert soak.unexplained() != []


@pytest.mark.parametrize("kind", [kind for kind in FaultKind if kind not in BREAKING], ids=str)
def test_fault_without_process_loss_explains_no_error(kind: FaultKind) -> None:
    for each in SAYS.values():
        if each.how != "told":
            assert explanation(each, [FAULTS[kind]]) is None


# ---- sums


def outcome() -> Outcome:
    """Return the outcome of a soak without faults."""
    account = Account(seen={COMER: [Seen(1, 1.1, 200, True)], DETOUR: [Seen(21, 21.1, 404, False)]})
    for name in KINDS:
        account.asked[name] = account.answered[name] = account.whole[name] = 10
    account.asked[LIMITED] += 5
    account.refused[LIMITED] = 5
    account.asked["once"] += 2
    account.unbilled["once"] = 2
    watch = Watch.__new__(Watch)
    watch.readings, watch.falls, watch.failures, watch.series = 100, [], [], 1
    watch.connections = dict.fromkeys(range(100), 40.0)
    watch.ended_with, watch.began_anew = Counter(), Counter()
    watch.roles = {1: "worker", 2: "supervisor"}
    watch.vitals = {pid: [Vitals(look, float(look), 50, 30_000) for look in range(100)] for pid in watch.roles}
    held = {name: Held([(0.0, True), (20.0, None), (21.0, False)]) for name in (COMER, DETOUR)}
    sums = Sums(
        account,
        counted=dict.fromkeys(KINDS, 10),
        sealed=dict.fromkeys(KINDS, 10),
        ledger=dict.fromkeys(KINDS, 10),
        metered=10.0 * len(KINDS),
        given={**dict.fromkeys(KINDS, 10), ODD: 0},
        retries=0.0,
        limited=5.0,
        verdicts={"edgeproxy verify": (0, "OK")},
    )
    return Outcome(
        1,
        100.0,
        frozenset(FaultKind),
        list(FAULTS.values()),
        held,
        [sums],
        Counter(arrives=9),
        watch,
        Calm(10, 90),
        30_000,
    )


def complaint(of: Outcome) -> str:
    """The only one."""
    (found,) = of.complaints()
    return found


def test_successful_soak_has_a_report_without_complaints() -> None:
    assert outcome().complaints() == []
    assert "Everything held." in report(outcome())


def counts(of: Outcome, name: str, more: int, *, given: bool = True) -> Sums:
    """Add this number of requests of a kind to all counters, and to the endpoints' counter if `given`."""
    (sums,) = of.sums
    for each in (sums.counted, sums.sealed, sums.ledger):
        each[name] += more
    sums.metered += more
    sums.given[name] += more * given
    return sums


def test_an_answer_that_was_not_counted_is_found() -> None:
    wrong = outcome()
    counts(wrong, "keep", -1)
    assert complaint(wrong) == "keep: answered 10, lost 0, but counted 9"


def test_verdict_finds_a_count_without_an_answer() -> None:
    wrong = outcome()
    counts(wrong, "keep", 1)
    assert wrong.complaints() == [
        "keep: answered 10, lost 0, but counted 11",
        "keep: counted 11, answered 10, lost 0, sent again 0, but given 11",
    ]
    wrong.account.asked["keep"] += 1  # one without an answer
    assert wrong.complaints() == []


def test_verdict_finds_a_repeated_answer_unless_retries_are_allowed() -> None:
    for name in ("keep", "sized"):
        wrong = outcome()
        wrong.sums[0].given[name] += 1
        assert complaint(wrong) == f"{name}: counted 10, answered 10, lost 0, sent again 0, but given 11"
    wrong.sums[0].retries = 1
    assert complaint(wrong).startswith("sized: counted 10")
    wrong = outcome()
    wrong.sums[0].given["keep"] += 1
    wrong.sums[0].retries = 1
    assert wrong.complaints() == []


def test_fewer_answers_given_than_counted_are_found() -> None:
    wrong = outcome()
    wrong.sums[0].given["keep"] -= 1
    assert complaint(wrong).startswith("keep: counted 10")


def test_an_answer_that_is_not_billed_and_was_counted_is_found() -> None:
    wrong = outcome()
    counts(wrong, "once", 1, given=False)
    assert wrong.complaints()[0] == "once: answered 10, lost 0, but counted 11"


@pytest.mark.parametrize("more", [-1, 1], ids=["lost", "twice"])
@pytest.mark.parametrize("where", ["sealed", "ledger"])
def test_verdict_finds_lost_and_duplicated_counts(where: str, more: int) -> None:
    wrong = outcome()
    getattr(wrong.sums[0], where)["keep"] += more
    has = {"sealed": "the batches have", "ledger": "the ledger has"}[where]
    assert complaint(wrong) == f"keep: counted 10, but {has} {10 + more}"


def test_verdict_finds_unknown_and_offset_miscounts() -> None:
    wrong = outcome()
    wrong.sums[0].ledger["nobody"] = 1
    assert complaint(wrong) == "nobody: counted 0, but the ledger has 1"
    wrong = outcome()
    wrong.sums[0].ledger["keep"] += 1
    wrong.sums[0].ledger["sized"] -= 1
    assert len(wrong.complaints()) == 2
    wrong = outcome()
    wrong.sums[0].ledger["keep"] += 1
    wrong.sums += outcome().sums
    assert complaint(wrong) == "keep: counted 10, but the ledger has 11"


def test_verdict_reports_the_findings_of_commands() -> None:
    wrong = outcome()
    wrong.sums[0].verdicts["edgeproxy verify"] = (1, "batch 7 is not what follows batch 6\n")
    assert complaint(wrong) == "edgeproxy verify: batch 7 is not what follows batch 6"


def test_sums_that_differ_between_listings_are_found() -> None:
    wrong = outcome()
    wrong.sums[0].metered -= 1
    assert "/metrics counts" in complaint(wrong)
    wrong = outcome()
    wrong.sums[0].limited += 1
    assert "refused by a limit" in complaint(wrong)
    wrong = outcome()
    wrong.sums[0].given[ODD] = 1
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
def test_verdict_checks_the_lifetime_of_a_route(seen: Seen, good: bool) -> None:
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


def test_verdict_reports_missing_faults_and_readings() -> None:
    wrong = outcome()
    wrong.faults.pop()
    assert complaint(wrong) == f"not done: {list(FaultKind)[-1]}"
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
    wrong.watch.vitals[2][50] = Vitals(50, 50.0, 50, 130_000)
    assert "supervisor 2 held" in complaint(wrong)
    wrong.idle = 120_000
    assert wrong.complaints() == []


def test_a_line_through_points_says_where_they_begin_and_end() -> None:
    line = trend([(0, 1.0), (1, 3.0), (2, 5.0)])
    assert (line.begin, line.end, line.growth) == pytest.approx((1, 5, 4))
