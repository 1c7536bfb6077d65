from edgeproxy.limits.policies import Policies
from edgeproxy.limits.rule import Rule
from edgeproxy.limits.usage import Usage, look
from tests.limits.conftest import Worker

START = 51_000_000.0
RULE = Rule("basic", 10, 60.0)


def test_who_was_never_seen_has_used_nothing_and_gets_no_row(worker: Worker) -> None:
    table = worker(0)
    assert look(table, RULE, b"acme", START) == Usage(0, 10, 0)
    assert table.rows_in_use == 0


def test_what_all_workers_counted_is_used(worker: Worker) -> None:
    for column, cost in ((0, 2), (1, 3)):
        policy = Policies(worker(column)).of(RULE, b"acme")
        policy.left(START)
        policy.charge(cost)
    supervisor = worker(7)
    usage = look(supervisor, RULE, b"acme", START)
    assert (usage.used, usage.remaining) == (5, 5)
    assert usage.reset == policy.reset(START)
    assert look(supervisor, RULE, b"acme", START + 63) == Usage(0, 10, 0)


def test_nothing_less_than_nothing_remains(worker: Worker) -> None:
    policy = Policies(worker(0)).of(RULE, b"acme")
    policy.left(START)
    policy.charge(25)
    assert look(worker(1), RULE, b"acme", START)[:2] == (25, 0)
