from pathlib import Path

import pytest

from edgeproxy.edge.counters import layout as at
from edgeproxy.edge.counters.layout import HEADS_APART, LONE_HEAD_WORDS, Layout
from edgeproxy.edge.counters.rows import LimitTable
from edgeproxy.edge.limits import local
from edgeproxy.edge.limits.policies import Policies
from edgeproxy.edge.limits.policy import Policy
from edgeproxy.edge.limits.rule import Rule
from tests.support.tables import claim, limits, make, number_of

START = 51_000_000.0
RULE = Rule("basic", 21, 60.0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A table with two rows, for two workers."""
    return make(
        tmp_path, Layout("customers", rows=2, columns=4, ring=32, cells=28, width=LONE_HEAD_WORDS, parts=HEADS_APART)
    )


@pytest.fixture
def table(path: Path) -> LimitTable:
    table = limits(path, 0)
    claim(table, b"acme")
    claim(table, b"globex")
    return table


def spend(policy: Policy, now: float = START) -> int:
    """Charge until it refuses."""
    spent = 0
    while policy.left(now) > 0:
        policy.charge()
        spent += 1
    return spent


def free(table: LimitTable, key: bytes) -> None:
    table.free(number_of(table, claim(table, key)))


def test_without_a_row_a_subject_has_its_share_of_the_limit(table: LimitTable) -> None:
    assert spend(Policies(table).get_policy(RULE, b"initech")) == 10
    assert spend(Policies(table, hosts=3).get_policy(RULE, b"hooli")) == 3


def test_each_subject_without_a_row_has_its_own_count(table: LimitTable) -> None:
    policies = Policies(table)
    one, two = policies.get_policy(RULE, b"initech"), policies.get_policy(RULE, b"hooli")
    assert (spend(one), one.left(START)) == (10, 0)
    assert (spend(two), two.left(START)) == (10, 0)


def test_full_table_is_logged_once_a_second(table: LimitTable) -> None:
    full: list[float] = []
    policy = Policies(table, full=lambda: full.append(START)).get_policy(RULE, b"initech")
    for step in range(100):
        policy.left(START + step / 50)
    assert len(full) == 2


def test_local_counts_move_into_a_row_when_one_is_free(table: LimitTable, path: Path) -> None:
    policy = Policies(table).get_policy(RULE, b"initech")
    assert spend(policy) == 10
    free(table, b"acme")
    assert policy.left(START + 0.5) == 0
    assert policy.left(START + 1.0) == 11
    assert Policies(limits(path, 1)).get_policy(RULE, b"initech").left(START + 1.0) == 11
    assert spend(policy, START + 1.0) == 11
    row = claim(table, RULE.key(b"initech"))
    assert table.words[row + table.head_at] == 21


def test_local_counts_of_past_cells_are_seen_by_other_workers_at_once(path: Path) -> None:
    one, two = limits(path, 0), limits(path, 1)
    early, late = Policies(one).get_policy(RULE, b"initech"), Policies(two).get_policy(RULE, b"initech")
    third = limits(path)
    assert third.file.lock()
    assert spend(late, START) == 10
    third.file.unlock()
    # In the next cell. The row looks unshared, because no other worker has counted in it yet.
    assert early.left(START + 3) == 21
    assert late.left(START + 3) == early.left(START + 3) == 11


def test_local_counts_are_added_to_those_of_the_column(table: LimitTable, path: Path) -> None:
    free(table, b"acme")
    known = Policies(limits(path, 0)).get_policy(RULE, b"initech")
    for now in (START, START + 5):
        known.left(now)
        known.charge(2)
    # This worker's successor does not get the flock in time for its first requests.
    successor = limits(path, 0)
    row = claim(table, RULE.key(b"initech"))
    table.words[row + at.ROW_GENERATION] += 1
    other = limits(path)
    assert other.file.lock()
    policy = Policies(successor).get_policy(RULE, b"initech")
    for now in (START + 5, START + 10):
        assert policy.left(now) > 0
        policy.charge(3)
    other.file.unlock()
    assert policy.left(START + 10) == 21 - 4 - 6
    assert Policies(limits(path, 1)).get_policy(RULE, b"initech").left(START + 10) == 11


def test_while_the_flock_is_not_to_be_had_it_is_tried_at_every_request(table: LimitTable, path: Path) -> None:
    free(table, b"acme")
    other = limits(path, 1)
    full: list[str] = []
    policy = Policies(table, full=lambda: full.append("full")).get_policy(RULE, b"initech")
    assert other.file.lock()
    assert policy.left(START) == 10
    policy.charge()
    assert policy.left(START) == 9
    other.file.unlock()
    assert policy.left(START) == 20
    assert full == []


def test_local_counts_outlive_their_policy_object_up_to_a_maximum(
    table: LimitTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "SUBJECTS_MAX", 2)
    policies = Policies(table)
    for subject in (b"one", b"two", b"three"):
        assert spend(policies.get_policy(RULE, subject)) == 10
    assert policies.get_policy(RULE, b"three").left(START) == 0
    assert policies.get_policy(RULE, b"two").left(START) == 0
    assert policies.get_policy(RULE, b"one").left(START) == 10


def test_table_without_active_columns_counts_one_worker(path: Path) -> None:
    table = limits(path, 1)
    claim(table, b"acme")
    claim(table, b"globex")
    limits(path).limit_active_columns(frozenset())
    table.refresh_columns()
    assert spend(Policies(table).get_policy(RULE, b"initech")) == 21


def test_objects_of_one_key_count_together_with_and_without_a_row(table: LimitTable) -> None:
    """Two keys of a customer, and a customer that is evicted while requests are in flight, have an object each."""
    one, two = (Policies(table).get_policy(RULE, b"initech") for _ in range(2))
    for turn in range(10):
        policy = (one, two)[turn % 2]
        assert policy.left(START) == 10 - turn
        policy.charge()
    assert (one.left(START), two.left(START)) == (0, 0)
    free(table, b"acme")
    assert [policy.left(START + 1.0) for policy in (one, two, one)] == [11, 11, 11]
    row = claim(table, RULE.key(b"initech"))
    assert table.words[row + table.head_at] == 10, "the counts of before are in the row once"
    for turn in range(11):
        policy = (one, two)[turn % 2]
        assert policy.left(START + 1.0) == 11 - turn
        policy.charge()
    # In the next cell each object sums the row anew.
    assert (one.left(START + 5.0), two.left(START + 5.0)) == (0, 0)
    assert table.words[row + table.head_at] == 21


def test_slots_of_one_key_are_used_together_with_and_without_a_row(table: LimitTable) -> None:
    rule = Rule("concurrency", 6, 0.0, algorithm="concurrency")
    one, two = (Policies(table).get_concurrency(rule, b"initech") for _ in range(2))
    assert [each.acquire(START) for each in (one, two, one, two)] == [True, True, True, False]
    assert (one.counts.used, two.counts.used) == (3, 3)
    free(table, b"acme")
    assert two.acquire(START + 1.0), "in a row"
    one.release()
    assert (one.counts.used, two.counts.used) == (3, 3), "the first object has not looked the row up yet"
    assert [each.acquire(START + 1.0) for each in (one, two, one, two)] == [True, True, True, False]
    for each in (two, two, two, one, one, one):
        each.release()
    assert (one.counts.used, two.counts.used) == (0, 0)
    assert table.in_use(claim(table, rule.key(b"initech"))) == 0


def test_common_slots_without_a_row_enter_the_row(table: LimitTable) -> None:
    """Many customers use the slots of an address by one object."""
    rule = Rule("concurrency", 6, 0.0, algorithm="concurrency")
    policies = Policies(table, is_common=True)
    one, two = policies.get_concurrency(rule, b"initech"), policies.get_concurrency(rule, b"initech")
    assert one.counts is two.counts
    assert [each.acquire(START) for each in (one, two, one, two)] == [True, True, True, False]
    free(table, b"acme")
    assert two.acquire(START + 1.0)
    assert table.in_use(claim(table, rule.key(b"initech"))) == 4
    assert policies.get_concurrency(rule, b"initech").counts is one.counts
