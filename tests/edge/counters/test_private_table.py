"""Limits of one process, in no file."""

import gc

from edgeproxy.edge.counters.private_table import private_table
from edgeproxy.edge.limits.policies import Policies
from edgeproxy.edge.limits.rule import Rule


def test_private_table_counts_each_subject_separately() -> None:
    policies = Policies(private_table(16))
    gc.collect()
    policy = policies.get_policy(Rule("requests", 2, 60.0, "ip"), b"somebody")
    for _ in range(2):
        assert not policy.retry_after(1000.0)
        policy.charge()
    assert policy.retry_after(1000.0)
    assert not policies.get_policy(Rule("requests", 2, 60.0, "ip"), b"another").retry_after(1000.0)
