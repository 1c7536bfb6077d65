import re
from typing import get_args

import pytest

from edgeproxy.config.algorithms import DEFAULT_DEPTHS, AlgorithmName
from edgeproxy.edge.limits.fields import format_legacy, format_rate_limit, remove_legacy
from edgeproxy.edge.limits.kinds import KINDS
from edgeproxy.edge.limits.policies import Policies
from edgeproxy.edge.limits.rule import MODES, SCOPES, Rule
from tests.edge.limits.conftest import Worker

BUCKETS = ("token_bucket", "hybrid", "burst_credits")


def test_a_renamed_or_changed_limit_keeps_its_usage() -> None:
    rule = Rule("basic", 60, 60.0)
    assert rule.key(b"acme") == Rule("silver", 100, 60.0).key(b"acme")


@pytest.mark.parametrize(
    "other",
    [
        Rule("basic", 60, 61.0),
        Rule("basic", 60, 60.000001),
        Rule("basic", 60, 60.0, scope="key"),
        Rule("basic", 60, 60.0, mode="shadow"),
        *(Rule("basic", 60, 60.0, algorithm=algorithm, depth=10) for algorithm in BUCKETS),
    ],
)
def test_rule_key_depends_on_window_scope_mode_and_algorithm(other: Rule) -> None:
    assert Rule("basic", 60, 60.0).key(b"acme") != other.key(b"acme")


@pytest.mark.parametrize("algorithm", BUCKETS)
def test_bucket_row_key_ignores_the_depth(algorithm: str) -> None:
    one, other = (Rule("basic", 60, 60.0, algorithm=algorithm, depth=depth) for depth in (10, 20))
    assert one != other
    assert one.key(b"acme") == other.key(b"acme")


def test_requests_at_once_have_no_window() -> None:
    rule = Rule("concurrency", 10, 0.0, algorithm="concurrency")
    assert rule.key(b"acme") == b"cce0:acme"


def test_a_window_and_a_subject_cannot_be_taken_for_each_other() -> None:
    assert Rule("basic", 60, 60.0).key(b"1") != Rule("basic", 60, 600.0).key(b"")


def test_every_word_has_a_letter_of_its_own() -> None:
    kinds = {name: kind.letter for name, kind in KINDS.items()}
    for table in (SCOPES, kinds, MODES):
        assert len(set(table.values())) == len(table)
        assert all(len(letter) == 1 for letter in table.values())


@pytest.mark.parametrize(("limit", "window"), [(0, 60.0), (-1, 60.0), (1, 0.0), (1, -1.0)])
def test_a_limit_that_lets_nothing_through_is_refused(limit: int, window: float) -> None:
    with pytest.raises(ValueError, match="basic: a limit of"):
        Rule("basic", limit, window)


@pytest.mark.parametrize("algorithm", BUCKETS)
def test_bucket_without_a_depth_is_refused(algorithm: str) -> None:
    with pytest.raises(ValueError, match="basic: a limit of"):
        Rule("basic", 60, 60.0, algorithm=algorithm)


@pytest.mark.parametrize(("window", "seconds"), [(60.0, 60), (0.5, 1), (1.5, 2), (86400.0, 86400)])
def test_policy_field_states_the_window_in_whole_seconds(window: float, seconds: int) -> None:
    prefix = Rule("basic", 60, window).prefix
    assert prefix == b'RateLimit-Policy: "basic";q=60;w=%d\r\nRateLimit: "basic";r=' % seconds


@pytest.mark.parametrize(
    ("algorithm", "depth", "most"),
    [("sliding_window", 0, 60), ("token_bucket", 90, 90), ("hybrid", 90, 60), ("hybrid", 6, 6), ("concurrency", 0, 60)],
)
def test_largest_burst_of_an_unused_limit(algorithm: str, depth: int, most: int) -> None:
    window = 0.0 if algorithm == "concurrency" else 60.0
    assert Rule("basic", 60, window, algorithm=algorithm, depth=depth).most == most


def test_a_limit_of_other_requests_is_another_limit() -> None:
    keys = {Rule("basic", 60, 60.0, requests=requests).key(b"acme") for requests in ("", "chat", "chat,run")}
    assert len(keys) == 3


# ---- the table of kinds


def test_each_configurable_algorithm_with_a_depth_has_a_bucket() -> None:
    configured = {name: depth is not None for name, depth in DEFAULT_DEPTHS.items()}
    assert set(get_args(AlgorithmName)) == configured.keys()
    rates = {name: kind.rate for name, kind in KINDS.items()}
    assert configured == {
        name: rate is not None and rate.has_bucket for name, rate in rates.items() if name in configured
    }


# ---- the fields of the rate limit


START = 51_000_000.0


def test_rate_limit_lines_follow_the_draft(worker: Worker) -> None:
    policy = Policies(worker(0)).get_policy(Rule("basic", 60, 60.0), b"acme")
    left = policy.left(START)
    policy.charge()
    lines = format_rate_limit(policy, left - 1, START)
    seconds = re.fullmatch(rb'RateLimit-Policy: "basic";q=60;w=60\r\nRateLimit: "basic";r=59;t=([0-9]+)\r\n', lines)
    assert seconds is not None
    assert 60 <= int(seconds[1]) <= 63


def test_the_lines_of_old_say_the_same(worker: Worker) -> None:
    policy = Policies(worker(0)).get_policy(Rule("basic", 60, 60.0), b"acme")
    policy.left(START)
    assert format_legacy(policy, 12, START) == (
        b"X-RateLimit-Limit: 60\r\nX-RateLimit-Remaining: 12\r\nX-RateLimit-Reset: %d\r\n" % policy.reset(START)
    )


def test_lines_of_old_that_are_not_ours_go() -> None:
    head = b"HTTP/1.1 200 OK\r\nX-RateLimit-Limit: 7\r\nDate: x\r\nX-RateLimit-Policy: y\r\nx-ratelimit-reset:1\r\n"
    assert remove_legacy(head) == b"HTTP/1.1 200 OK\r\nDate: x\r\nX-RateLimit-Policy: y\r\n"
