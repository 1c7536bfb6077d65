"""Routing by latency: `regions` of collector.yaml, and regions.yaml, the beacon's file."""

from pathlib import Path

import pytest

from edgeproxy.config import file_kinds
from edgeproxy.config.collector import load as collector_load
from edgeproxy.config.collector import regions
from edgeproxy.config.problems import ConfigError
from tests.config.conftest import write

TOKENS = f"tokens: [{{sha256: {'a' * 64}, role: beacon}}]\n"
PLACES = "regions: {eu: https://eu.example.com/beacon/, us: 'http://us.example.com:8080'}\n"
LEAST = PLACES + "collector: http://127.0.0.1:9100\n"


def problems(text: str) -> list[str]:
    """Return the problems of a file, without their lines. `check` and the loaders must report alike."""
    is_beacon = "tokens" not in text
    write(Path(), {"some.yaml": text})
    result = []
    for ask in (file_kinds.check_file, collector_load.load_regions if is_beacon else collector_load.load_collector):
        with pytest.raises(ConfigError) as caught:
            ask(Path("some.yaml"), {})
        result.append([line.split(": ", 1)[1] for line in str(caught.value).splitlines()])
    assert result[0] == result[1]
    return result[0]


@pytest.mark.usefixtures("folder")
def test_the_least_has_defaults() -> None:
    write(Path(), {"regions.yaml": LEAST, "collector.yaml": TOKENS + "regions: {names: [eu, us]}"})
    settings = file_kinds.check_file(Path("regions.yaml"), {})
    assert isinstance(settings, regions.BeaconSettings)
    assert collector_load.load_regions(Path("regions.yaml"), {}) == settings
    assert settings.regions == {"eu": "https://eu.example.com/beacon", "us": "http://us.example.com:8080"}
    assert (str(settings.listen), settings.path, settings.country, settings.secret) == (
        *("127.0.0.1:8090", "/beacon"),
        *(None, None),
    )
    measured = collector_load.load_collector(Path("collector.yaml"), {}).regions
    assert measured is not None
    assert (measured.default, measured.fallback) == (None, "eu")
    write(Path(), {"collector.yaml": TOKENS + "regions: {names: [eu, us], default: us}"})
    chosen = collector_load.load_collector(Path("collector.yaml"), {}).regions
    assert chosen is not None
    assert chosen.fallback == "us"


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("place", "what"),
    [
        ("eu.example.com", "'eu.example.com' is not a URL of http:// or https://"),
        ("ftp://eu.example.com", "'ftp://eu.example.com' is not a URL of http:// or https://"),
        ("https:///beacon", "'https:///beacon' is not a URL of http:// or https://"),
        ("https://eu:0/", "'https://eu:0/' is not a URL of http:// or https://"),
        ("https://eu:x/", "'https://eu:x/' is not a URL"),
        ("https://eu/?a=1", "'https://eu/?a=1' has more than a host and a path"),
        ("https://eu/#a", "'https://eu/#a' has more than a host and a path"),
        ("https://u:p@eu/", "'https://…@eu/' has more than a host and a path"),
        ("https://eu/a b", "'https://eu/a b' has more than a host and a path"),
    ],
)
def test_a_place_is_a_url_with_a_host_and_a_path(place: str, what: str) -> None:
    assert problems(f"regions: {{us: http://us, eu: '{place}'}}\ncollector: http://c\n") == [
        f"regions.eu: {what}, {regions.A_PLACE}"
    ]


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("more", "reported"),
    [
        (
            "country: {header: CF-IPCountry}",
            ["country.header: can be sent by anybody, name who sets it under trusted_proxies"],
        ),
        (
            "country: {file: a.csv, set_by: [10.0.0.0/8]}",
            ["country.set_by: is about a header, and there is none, leave it out"],
        ),
        ("country: {}", ["country: has neither a header nor a file, write one of them"]),
        (
            "trusted_proxies: [10.0.0.0/8]\ncountry: {header: CF-IPCountry, file: a.csv}",
            ["country: has a header and a file, write one of them"],
        ),
    ],
)
def test_a_country_is_known_by_one_thing_that_can_be_trusted(more: str, reported: list[str]) -> None:
    assert problems(LEAST + more) == reported


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("given", "reported"),
    [
        ("{names: [eu, us, eu]}", ["regions.names.2: 'eu' is there twice, name each region once"]),
        ("{names: [eu, us], default: ap}", ["regions.default: 'ap' is not in names, name it there too"]),
        ("{}", ["regions.names: is missing, write names: [eu-west, us-east]"]),
    ],
)
def test_collector_regions_must_be_unique_and_contain_the_default(given: str, reported: list[str]) -> None:
    assert problems(TOKENS + f"regions: {given}\n") == reported


@pytest.mark.usefixtures("folder")
def test_single_region_is_refused() -> None:
    why = "has one region, there is nothing to choose: name two or more"
    assert problems(TOKENS + "regions: {names: [eu]}\n") == [f"regions.names: {why}"]
    assert problems("regions: {eu: http://eu}\ncollector: http://c\n") == [f"regions: {why}"]
