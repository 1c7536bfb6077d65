"""What is still to come."""

import pytest

from edgeproxy.config.unsupported import LATER
from tests.config.conftest import LEAST

UPSTREAM = "upstreams:\n  api: {endpoints: ['http://a:1'], %s}\n"
ROUTE = "routes:\n  - {path: /, upstream: api, %s}\n"
TIER = "tiers: {t: {%s}}"
CUSTOMER = "tiers: {t: {}}\ncustomers: {c: {tier: t, %s}}"
LIMIT = "tiers: {t: {limits: [{rate: 60/min, %s}]}}"

USES = {
    "hub": ["hub: redis://localhost:6379/0", "hub: rediss://h", "hub: redis+cluster://h",
            "hub: {url: redis://h, sync: 1s, on_loss: share}", "hub: {url: memory://}"],
    "usage": ["usage: {collector: 'http://127.0.0.1:9100', token: '', every: 5s, tls: {ca: x}}"],
    "flags": ["flags: {new-api: {percent: 10, tiers: [pro], customers: [acme]}}"],
    "directory": ["directory: {from: collector, ttl: 60s}"],
    "cache_key": ["cache_key: secret"],
    "meters.m.count": [f"meters: {{m: {{count: {what}}}}}" for what in
                       ("bytes_in", "bytes_out", "cost", "response_header", "response_trailer")],
    "meters.m.header": ["meters: {m: {count: requests, header: X-Usage}}"],
    "meters.m.pass": ["meters: {m: {count: requests, pass: true}}"],
    "tiers.t.concurrency": [TIER % "concurrency: 2"],
    "tiers.t.quotas": [TIER % "quotas: [{meter: requests, per: day, included: 100000, cap: soft, timezone: UTC}]"],
    "tiers.t.burst_credits": [TIER % "burst_credits: {earn: 10/s, max: 600}"],
    "tiers.t.priority": [TIER % "priority: 1"],
    "tiers.t.message": [TIER % "message: Buy more"],
    "tiers.t.caps": [TIER % "caps: {anything: goes}"],
    "customers.c.concurrency": [CUSTOMER % "concurrency: 2"],
    "customers.c.quotas": [CUSTOMER % "quotas: []"],
    "customers.c.burst_credits": [CUSTOMER % "burst_credits: {earn: 10/s, max: 600}"],
    "customers.c.priority": [CUSTOMER % "priority: 0"],
    "customers.c.message": [CUSTOMER % "message: Buy more"],
    "customers.c.caps": [CUSTOMER % "caps: 5"],
    "customers.c.paused": [CUSTOMER % "paused: {why: unpaid, status: 402}"],
    "customers.c.regions": [CUSTOMER % "regions: {allow: [eu-west], prefer: eu-west}"],
    "tiers.t.limits.0.algorithm": [LIMIT % "algorithm: token_bucket", LIMIT % "algorithm: hybrid"],
    "tiers.t.limits.0.burst": [LIMIT % "burst: 5"],
    "tiers.t.limits.0.scope": [LIMIT % f"scope: {scope}" for scope in ("key", "ip", "route", "customer_route")],
    "tiers.t.limits.0.mode": [LIMIT % "mode: shadow"],
    "tiers.t.limits.0.sync": [LIMIT % f"sync: {sync}" for sync in ("bounded", "eventual", "strict")],
    "tiers.t.limits.0.cost_header": [LIMIT % "cost_header: X-Cost"],
    "customers.c.limits.0.algorithm": [CUSTOMER % "limits: [{rate: 1/s, algorithm: hybrid}]"],
    "customers.c.limits.0.burst": [CUSTOMER % "limits: [{rate: 1/s, burst: 5}]"],
    "customers.c.limits.0.scope": [CUSTOMER % "limits: [{rate: 1/s, scope: key}]"],
    "customers.c.limits.0.mode": [CUSTOMER % "limits: [{rate: 1/s, mode: shadow}]"],
    "customers.c.limits.0.sync": [CUSTOMER % "limits: [{rate: 1/s, sync: strict}]"],
    "customers.c.limits.0.cost_header": [CUSTOMER % "limits: [{rate: 1/s, cost_header: X-Cost}]"],
    "routes.0.cost": ["routes: [{path: /, upstream: u, cost: 10}]"],
    "routes.0.limits": ["routes: [{path: /, upstream: u, limits: [{rate: 5/min, scope: customer}]}]"],
    "routes.0.flag": ["routes: [{path: /, upstream: u, flag: new-api}]"],
}  # fmt: skip
"""Right uses of everything that is to come, by the path that the problem has."""

EVERYWHERE = {"upstreams": "upstreams: {u: {endpoints: ['http://a']}}", "routes": "routes: [{path: /x, upstream: u}]"}


def with_the_rest(use: str) -> str:
    """A configuration with this use, and with what every configuration needs."""
    rest = [line for section, line in EVERYWHERE.items() if f"{section}:" not in use]
    return "\n".join([use, *rest]) + "\n"


@pytest.mark.parametrize(("path", "use"), [(path, use) for path, uses in USES.items() for use in uses])
def test_a_right_use_is_not_supported_yet(problems, path, use):
    found = problems(with_the_rest(use))
    assert len(found) == 1
    assert f" {path}: is not supported yet, " in found[0]


def test_each_row_of_the_table_is_tried():
    steps = {"t", "c", "m", "0"}
    tried = {".".join("*" if step in steps else step for step in path.split(".")) for path in USES}
    assert tried == set(LATER)


@pytest.mark.parametrize(
    "use",
    [
        "hub: memory://",
        LIMIT % "algorithm: sliding_window, scope: customer, mode: enforce",
        "meters: {m: {count: requests, when: success}}",
    ],
)
def test_what_is_so_already_may_be_said(problems, use):
    assert problems(with_the_rest(use)) == []


@pytest.mark.parametrize(
    ("use", "expected"),
    [
        ("hub: redi://h", ["hub: 'redi://h' is not known here, write memory://"]),
        ("usag: {}", ["usag: unknown field, did you mean usage?"]),
        (
            "usage: {colector: x, every: 5}",
            [
                "usage: is not supported yet, leave it out",
                "usage.every: '5' lacks a unit, a time such as 250ms, 5s or 2min",
                "usage.colector: unknown field, did you mean collector?",
            ],
        ),
        (
            "hub: {ulr: redis://h}",
            ["hub: is not supported yet, write memory://", "hub.ulr: unknown field, did you mean url?"],
        ),
        (TIER % "concurency: 2", ["tiers.t.concurency: unknown field, did you mean concurrency?"]),
        (
            TIER % "concurrency: x",
            [
                "tiers.t.concurrency: is not supported yet, leave it out",
                "tiers.t.concurrency: 'x' is not a whole number, a whole number from 1 to 268435455",
            ],
        ),
        (
            TIER % "quotas: [{per: week}]",
            [
                "tiers.t.quotas: is not supported yet, leave it out",
                "tiers.t.quotas.0.per: 'week' is not known here, write day or month",
            ],
        ),
        (
            TIER % "message: [a]",
            [
                "tiers.t.message: is not supported yet, leave it out",
                "tiers.t.message: is not a single value, write one",
            ],
        ),
        (
            LIMIT % "algorithm: token_buket",
            ["tiers.t.limits.0.algorithm: 'token_buket' is not known here, write sliding_window"],
        ),
        (LIMIT % "brust: 5", ["tiers.t.limits.0.brust: unknown field, did you mean burst?"]),
        (
            "routes: [{path: /, upstream: u, limits: [{name: x}]}]",
            [
                "routes.0.limits: is not supported yet, leave it out",
                "routes.0.limits.0.rate: is missing, write rate: 60/min",
            ],
        ),
    ],
)
def test_what_is_to_come_is_known_and_its_shape_is_looked_at(problems, use, expected):
    assert problems(with_the_rest(use)) == [f"edge.yaml:1: {line}" for line in expected]


def test_a_value_that_could_not_be_had_is_reported_once(problems):
    assert problems(LEAST + "cache_key: ${KEY}\n") == [
        "edge.yaml:3: cache_key: the environment has no variable KEY, set it, or write ${KEY:-default}"
    ]
