"""What a host makes of answers of the hub: in what order they come, and what it holds back for others."""

from edgeproxy.sync.memory import Memory
from edgeproxy.sync.plan import RETURNING, Counted, Plan, Terms
from edgeproxy.sync.report import Bucket, Report, Told

NOW = 50_000_000.0
CELL = 1_000_000
LIMIT = 600


def told(claims: int) -> Told:
    return Told(True, 2, claims, {}, {}, {})


def test_an_answer_after_all_is_told_anew_gives_nothing_twice() -> None:
    plan = Plan(b"k", Terms(LIMIT, 60.0, 28), 1, hosts=2)

    def report(seq: int, waiting: int, spent: int) -> None:
        plan.report(NOW, CELL, 1, seq, Counted({}, spent, LIMIT, spent, waiting))

    report(1, 10, 0)
    assert plan.answer(NOW, CELL, 1, told(10)) == 10
    report(2, 0, 0)
    report(3, 0, 5)
    # One of those under way was refused by the hub, so all of them are forgotten; then the other's answer comes.
    plan.lost()
    assert plan.answer(NOW, CELL, 2, told(10)) == 0, "five have been spent since"
    assert plan.claims == 10
    report(4, 0, 5)
    assert plan.answer(NOW, CELL, 4, told(5 + 3)) == 3, "what was granted without an answer is made up for"


def test_of_a_window_with_a_bucket_the_same_part_is_kept_for_others_as_while_the_hub_was_away() -> None:
    plan = Plan(b"k", Terms(LIMIT, 60.0, 28, depth=60, rate=10.0), 1, hosts=2)
    plan.found(NOW, 30)
    assert plan.withheld(NOW) == LIMIT // 2
    assert plan.withheld(NOW + RETURNING) == 0


def test_another_row_of_a_host_that_has_counted_for_long_is_not_poured_into_the_bucket_at_once() -> None:
    hub = Memory()

    def report(seq: int, born: int, cum: int, level: float, own: float) -> float:
        bucket = Bucket(100, 1.0, level, own)
        return hub.report(Report(b"k", 1, seq, born, NOW, 100.0, cum, bucket=bucket)).level

    assert report(1, 1, 100_000, 40.0, 10.0) == 50
    # In the next table's file, which says what was counted in this one too.
    assert report(2, 2, 100_003, 50.0, 3.0) == 53
    assert report(3, 2, 100_004, 53.0, 1.0) == 54
