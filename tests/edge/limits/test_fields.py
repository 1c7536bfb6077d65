import re

from edgeproxy.edge.limits.fields import format_legacy, format_rate_limit, remove_legacy
from edgeproxy.edge.limits.policies import Policies
from edgeproxy.edge.limits.rule import Rule
from tests.edge.limits.conftest import Worker

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
