"""h2load's report, and the HTTP/2 goals that it meets or misses."""

import pytest

from loadtest.bench.load.h2load import parse
from loadtest.bench.load.wrk import Load
from loadtest.bench.measure.http2 import Http2Cost
from loadtest.bench.report.http2 import find_verdicts, format_costs

REPORT = """
finished in 950.00ms, 17373.00 req/s, 3.38MB/s
requests: 17373 total, 17413 started, 17373 done, 17300 succeeded, 70 failed, 2 errored, 1 timeout
status codes: 17300 2xx, 0 3xx, 60 4xx, 10 5xx
traffic: 3.38MB (3544316) total, 1.42MB (1494082) headers (space savings 20.37%), 1.66MB (1737300) data
"""


def test_a_report_is_read_to_the_last_request() -> None:
    assert parse(REPORT) == Load(requests=17300, microseconds=950_000, bytes=3544316, refused=70, failed=73)
    with pytest.raises(RuntimeError, match="gave no result"):
        parse("connect failed")


def cost(peer: str, row: str, cpu: float, *, waited: float = 0.0, wrong: str = "", customers: int = 1) -> Http2Cost:
    return Http2Cost(1, peer, row, False, cpu, waited, wrong, customers)


def test_goals_are_judged_by_calm_and_right_slices() -> None:
    costs = [
        cost("edgeproxy", "HTTP/1.1", 20.0),
        cost("edgeproxy", "1 stream", 25.0),
        cost("edgeproxy", "1 stream", 90.0, waited=0.5),
        cost("edgeproxy", "1 stream", 1.0, wrong="the upstream saw 1 request"),
        cost("edgeproxy", "10 streams", 21.0),
        cost("nginx", "1 stream", 12.5),
        cost("edgeproxy", "HTTP/1.1", 30.0, customers=1000),
        cost("edgeproxy", "1 stream", 60.0, customers=1000),
    ]
    found = {what: (most, round(value, 2)) for what, most, value in find_verdicts(costs)}
    assert found == {
        "HTTP/2, clear, 1 stream: µs above HTTP/1.1": (6.0, 5.0),
        "HTTP/2, clear, 10 streams: µs above HTTP/1.1": (0.0, 1.0),
        "HTTP/2, clear, 1 stream, × nginx": (1.6, 2.0),
        "HTTP/2, clear, 1,000 customers, 1 stream: µs above HTTP/1.1": (6.0, 30.0),
    }
    assert "wrong: round 1, edgeproxy, 1 stream: the upstream saw 1 request" in format_costs(costs)
    assert "1,000 customers, by a client in Python" in format_costs(costs)
