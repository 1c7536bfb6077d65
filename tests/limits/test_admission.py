from edgeproxy.limits.admission import admit, denied
from edgeproxy.limits.policies import Policies, Policy
from edgeproxy.limits.rule import Rule
from tests.limits.conftest import Worker

START = 51_000_000.0


def several(worker: Worker, *limits: int) -> list[Policy]:
    """Policies of one customer with windows of a second, two seconds, …"""
    policies = Policies(worker(0))
    return [policies.of(Rule(f"limit-{place}", limit, float(place + 1)), b"acme") for place, limit in enumerate(limits)]


def test_whoever_has_no_limits_is_let_through() -> None:
    assert admit((), START) == (None, None, 0)


def test_all_are_charged_and_the_one_closest_to_refusal_is_shown(worker: Worker) -> None:
    policies = several(worker, 10, 5, 7)
    assert admit(policies, START) == (None, policies[1], 4)
    assert [policy.left(START) for policy in policies] == [9, 4, 6]
    assert admit(policies, START, cost=3) == (None, policies[1], 1)
    assert [policy.left(START) for policy in policies] == [6, 1, 3]


def test_of_those_equally_close_the_first_is_shown(worker: Worker) -> None:
    policies = several(worker, 5, 5)
    assert admit(policies, START)[1] is policies[0]


def test_where_one_refuses_none_is_charged(worker: Worker) -> None:
    policies = several(worker, 10, 2, 10)
    assert admit(policies, START, cost=3) == (policies[1], policies[1], 2)
    assert [policy.left(START) for policy in policies] == [10, 2, 10]
    assert admit(policies, START, cost=2)[0] is None
    assert admit(policies, START) == (policies[1], policies[1], 0)
    assert [policy.left(START) for policy in policies] == [8, 0, 8]


def test_what_is_left_is_never_shown_as_negative(worker: Worker) -> None:
    policies = Policies(worker(0))
    policies.of(Rule("before", 10, 1.0), b"acme").left(START)
    before = policies.of(Rule("before", 10, 1.0), b"acme")
    before.left(START)
    before.charge(8)
    after = policies.of(Rule("after", 5, 1.0), b"acme")
    assert admit([after], START) == (after, after, 0)


def test_a_refusal_names_all_that_refuse_and_the_longest_wait(worker: Worker) -> None:
    policies = several(worker, 2, 9, 2, 2)
    for _ in range(2):
        admit(policies, START)
    refusal = denied(policies, START)
    assert refusal.violated == (policies[0], policies[2], policies[3])
    assert refusal.retry_after == max(policies[place].retry_after(START) for place in (0, 2, 3)) >= 4
    assert admit(policies, START + refusal.retry_after)[0] is None


def test_a_refusal_that_has_become_groundless_still_names_someone(worker: Worker) -> None:
    policies = several(worker, 2, 2)
    assert denied(policies, START) == ((policies[0],), 1)
    assert denied(policies[1:], START) == ((policies[1],), 1)


def test_a_refusal_by_the_only_policy_names_it_and_its_wait(worker: Worker) -> None:
    (policy,) = several(worker, 1)
    assert admit((policy,), START)[0] is None
    assert denied((policy,), START) == ((policy,), policy.retry_after(START))
