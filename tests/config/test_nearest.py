"""The name that was meant."""

from time import monotonic

import pytest

from edgeproxy.config.hub_settings import A_HUB
from edgeproxy.config.nearest import count_slips, find_nearest, format_suggestion
from tests.config.conftest import LEAST


def test_the_nearest_known_name_is_located():
    assert find_nearest("bsic", ["pro", "basic"]) == "basic"
    assert find_nearest("zzz", ["pro", "basic"]) is None
    assert find_nearest("tire", ["tier"]) == "tier"
    assert find_nearest("cors", ["routes"]) is None
    assert find_nearest("ulr", ["tls", "url"]) == "url"


def test_among_very_many_those_that_begin_alike_are_compared():
    names = {f"customer{number}": None for number in range(300_000)} | {"acme": None}
    began = monotonic()
    assert find_nearest("acne", names) == "acme"
    assert find_nearest("zzz", names) is None
    assert find_nearest("customer_7", names) is not None
    assert monotonic() - began < 5


def test_suggestion_names_the_nearest_or_all_known_names():
    assert format_suggestion("bsic", ["basic"], "define it") == "did you mean basic?"
    assert format_suggestion("zzz", ["pro", "basic"], "define it") == "known here: basic, pro"
    assert format_suggestion("zzz", [], "define it") == "define it"
    assert format_suggestion("zzz", [f"n{number}" for number in range(13)], "define it") == "define it"


@pytest.mark.parametrize(
    ("word", "name", "count"),
    [
        ("tier", "tier", 0),
        ("tire", "tier", 1),
        ("ulr", "url", 1),
        ("tiers", "tier", 1),
        ("per_ip", "peri", 2),
        ("", "a", 1),
    ],
)
def test_slips_are_counted(word, name, count):
    assert count_slips(word, name) == count_slips(name, word) == count


# ---- accepted spellings, and the hints for misspelt words


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
