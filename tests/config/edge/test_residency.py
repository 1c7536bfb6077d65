"""Residencies: one home, and the separate data of each."""

import pytest

from edgeproxy.config.directory import find_next_residency
from edgeproxy.config.edge.residency import find_home
from edgeproxy.config.parsers import read_residency
from edgeproxy.edge.counters.usage_key import qualify_customer, split_customer
from tests.config.conftest import LEAST, refusal
from tests.support.residencies import HOME, KEYS, TWO, one


@pytest.mark.parametrize(
    "text", [TWO, f"residency: {{eu: {HOME}}}", f"residency: {{us: {one(1, directory=', max_age: 1h')}, eu: {HOME}}}"]
)
def test_valid_setting_passes(problems, text):
    assert problems(LEAST + text + "\n") == []


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (TWO + "\nusage: {collector: 'http://127.0.0.1:9'}", "usage: is about one collector"),
        (f"{TWO}\ndirectory: {{from: collector, trust: '{KEYS[0]}'}}", "directory: is about one collector"),
        (f"residency: {{eu: {one(0)}, us: {one(1, 'home: false,')}}}", "residency: has no home"),
        (f"residency: {{eu: {one(0, 'home: [],')}}}", "residency: has no home"),
        (f"residency: {{eu: {one(0, 'home: perhaps,')}}}", "residency: has no home"),
        (f"residency: {{eu: {HOME}, us: {one(1, 'home: yes,')}}}", "residency.us.home: is true like"),
        (f"residency: {{eu: {HOME}, us: {one(0)}}}", "residency.us.usage.collector: is the collector of"),
        (f"residency: {{eu: {HOME}, us: {one(0)}}}", "residency.us.directory.trust: has a key of"),
        (
            f"residency: {{eu: {HOME}, us: {one(1, directory=', ttl: 5s')}}}",
            "residency.us.directory.ttl: is that of the home for all",
        ),
        (
            f"residency: {{eu: {HOME}, us: {one(1, usage=', tls: {verify: false}')}}}",
            "residency.us.usage.tls: says nothing to a collector of http://",
        ),
        (
            TWO.replace("collector, trust: '" + KEYS[1] + "'", "hub, trust: []"),
            "residency.us.directory.from: is the hub, which all residencies share",
        ),
        (TWO.replace("trust: '" + KEYS[1] + "'", "trust: []"), "residency.us.directory: names nobody who signs it"),
        (TWO.replace("us:", "US:"), "'US' is not a residency"),
        ("residency: {eu: {home: true}}", "residency.eu.usage: is missing"),
        ("residency: {eu: {home: true, usage: 1, directory: 2}}", "residency.eu.usage: "),
    ],
)
def test_invalid_residency_setting_names_the_fault(problems, text, what):
    assert any(what in problem for problem in problems(LEAST + text + "\n"))


def test_usage_and_directory_are_those_of_the_home(loaded):
    settings = loaded(f"residency: {{us: {one(1)}, eu: {HOME}}}\n")
    assert find_home(settings.residency) == "eu"
    assert settings.usage == settings.residency["eu"].usage
    assert settings.directory == settings.residency["eu"].directory
    assert settings.list_usages() == {
        "residency.us.usage": settings.residency["us"].usage,
        "residency.eu.usage": settings.residency["eu"].usage,
    }
    assert loaded("").list_usages() == {}
    single = loaded("usage: {collector: 'http://127.0.0.1:9'}\n")
    assert single.list_usages() == {"usage": single.usage}


def test_names_are_short_and_plain():
    assert read_residency("eu2") == "eu2"
    assert refusal(read_residency, "a" * 17)[0] == f"'{'a' * 17}' is not a residency"


def test_the_residency_of_a_name_in_the_usage_table():
    for customer, residency in (("acme", ""), ("acme", "us"), ("-", "")):
        assert split_customer(qualify_customer(customer, residency)) == (residency, customer)


def test_next_residency_is_read_from_a_moved_customer():
    assert find_next_residency('{"tier":"own","moved":"us"}') == "us"
    assert find_next_residency('{"tier":"own"}') is None
    assert find_next_residency('{"tier":"own","moved":"us","of a later version":1}') is None
