"""What is still to come."""

import pytest

from edgeproxy.config.unsupported import LATER
from tests.config.conftest import LEAST

TIER = "tiers: {t: {%s}}"
CUSTOMER = "tiers: {t: {}}\ncustomers: {c: {tier: t, %s}}"
LIMIT = "tiers: {t: {limits: [{rate: 60/min, %s}]}}"

USES = {
    "hub": ["hub: redis://localhost:6379/0", "hub: rediss://h", "hub: redis+cluster://h",
            "hub: {url: redis://h, sync: 1s, on_loss: share}", "hub: {url: memory://}"],
    "usage": ["usage: {collector: 'http://127.0.0.1:9100', token: '', every: 5s, tls: {ca: x}}"],
    "directory": ["directory: {from: collector, ttl: 60s}"],
    "cache_key": ["cache_key: secret"],
    "meters.m.count": [f"meters: {{m: {{count: {what}}}}}" for what in
                       ("bytes_in", "bytes_out", "cost", "response_header", "response_trailer")],
    "meters.m.header": ["meters: {m: {count: requests, header: X-Usage}}"],
    "meters.m.pass": ["meters: {m: {count: requests, pass: true}}"],
    "tiers.t.caps": [TIER % "caps: {anything: goes}"],
    "tiers.t.limits.0.sync": [LIMIT % f"sync: {sync}" for sync in ("bounded", "eventual", "strict")],
    "customers.c.caps": [CUSTOMER % "caps: 5"],
    "customers.c.limits.0.sync": [CUSTOMER % "limits: [{rate: 1/s, sync: strict}]"],
    "routes.0.limits.0.sync": ["routes: [{path: /, upstream: u, limits: [{rate: 5/min, sync: strict}]}]"],
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
        (TIER % "cap: 5", ["tiers.t.cap: unknown field, did you mean caps?"]),
        (
            "directory: {from: nowhere, ttl: [1]}",
            [
                "directory: is not supported yet, leave it out",
                "directory.from: 'nowhere' is not known here, write collector or hub",
                "directory.ttl: is not a single value, a time such as 250ms, 5s or 2min",
            ],
        ),
        (
            "cache_key: [a]",
            ["cache_key: is not supported yet, leave it out", "cache_key: is not a single value, write one"],
        ),
        (
            LIMIT % "sync: strickt",
            [
                "tiers.t.limits.0.sync: is not supported yet, leave it out",
                "tiers.t.limits.0.sync: 'strickt' is not known here, did you mean strict?",
            ],
        ),
        (LIMIT % "brust: 5", ["tiers.t.limits.0.brust: unknown field, did you mean burst?"]),
    ],
)
def test_what_is_to_come_is_known_and_its_shape_is_looked_at(problems, use, expected):
    assert problems(with_the_rest(use)) == [f"edge.yaml:1: {line}" for line in expected]


def test_a_value_that_could_not_be_had_is_reported_once(problems):
    assert problems(LEAST + "cache_key: ${KEY}\n") == [
        "edge.yaml:3: cache_key: the environment has no variable KEY, set it, or write ${KEY:-default}"
    ]
