"""Accepted spellings, and the hints for misspelt words."""

import pytest

from edgeproxy.config.hub_settings import A_HUB
from tests.config.conftest import LEAST

TIER = "tiers: {t: {%s}}"
LIMIT = "tiers: {t: {limits: [{rate: 60/min, %s}]}}"

EVERYWHERE = {"upstreams": "upstreams: {u: {endpoints: ['http://a']}}", "routes": "routes: [{path: /x, upstream: u}]"}


def with_the_rest(use: str) -> str:
    """A configuration with this use, and with what every configuration needs."""
    rest = [line for section, line in EVERYWHERE.items() if f"{section}:" not in use]
    return "\n".join([use, *rest]) + "\n"


@pytest.mark.parametrize(
    "use",
    [
        "hub: memory://",
        "hub: redis://h",
        "hub: {url: rediss://h}",
        "hub: Redis+Cluster://me:secret@h:7000",
        LIMIT % "sync: strict",
        LIMIT % "algorithm: sliding_window, scope: customer, mode: enforce",
        "meters: {m: {count: requests, when: success}}",
    ],
)
def test_each_accepted_spelling_passes(problems, use):
    assert problems(with_the_rest(use)) == []


@pytest.mark.parametrize(
    ("use", "expected"),
    [
        ("hub: redi://h", [f"hub: is not the URL of a hub, {A_HUB}"]),
        ("hub: {url: [a]}", [f"hub.url: is not a single value, {A_HUB}"]),
        ("tables: {people: 7}", ["tables.people: has another name now, write customers"]),
        (
            "directry: {}",
            ["directry: unknown field, did you mean directory?", "directry.from: is missing, write from: hub"],
        ),
        ("hub: {ulr: redis://h}", ["hub.ulr: unknown field, did you mean url?"]),
        (TIER % "cap: 5", ["tiers.t.cap: unknown field, did you mean caps?"]),
        (
            "directory: {from: nowhere, ttl: [1]}\nhub: redis://h",
            [
                "directory.from: 'nowhere' is not known here, write hub or collector",
                "directory.ttl: is not a single value, a time such as 250ms, 5s or 2min",
            ],
        ),
        (LIMIT % "sync: strickt", ["tiers.t.limits.0.sync: 'strickt' is not known here, did you mean strict?"]),
        (LIMIT % "brust: 5", ["tiers.t.limits.0.brust: unknown field, did you mean burst?"]),
    ],
)
def test_misspelled_value_gets_a_suggestion(problems, use, expected):
    assert problems(with_the_rest(use)) == [f"edge.yaml:1: {line}" for line in expected]


def test_a_value_that_could_not_be_had_is_reported_once(problems):
    assert problems(LEAST + "cache_key: ${KEY}\n") == [
        "edge.yaml:3: cache_key: the environment has no variable KEY, set it, or write ${KEY:-default}"
    ]
