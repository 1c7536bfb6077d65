"""The country of an address, by a database. An address outside it has no country."""

from pathlib import Path

import pytest

from edgeproxy.base.addresses import parse_ip
from edgeproxy.regions.beacon.countries import Countries, InvalidCountryDatabaseError, parse_country_code

LINES = """\
2001:db8::,2001:db8:0:ffff:ffff:ffff:ffff:ffff,JP
192.0.2.0,192.0.2.127,DE
192.0.2.128,192.0.2.255,FR
198.51.100.0,198.51.100.255,ZZ
0.0.0.0,0.255.255.255,US
"""


@pytest.mark.parametrize(
    ("address", "country"),
    [
        ("192.0.2.0", "DE"),
        ("192.0.2.127", "DE"),
        ("192.0.2.128", "FR"),
        ("192.0.3.0", None),
        ("198.51.100.7", None),
        ("2001:db8::1", "JP"),
        ("2001:db9::", None),
        ("::1", None),
    ],
)
def test_a_country_is_that_of_the_span_that_an_address_is_in(address: str, country: str | None, tmp_path: Path) -> None:
    (file := tmp_path / "countries.csv").write_text(LINES)
    ip = parse_ip(address)
    assert ip is not None
    assert Countries(file).find_country(ip) == country


@pytest.mark.parametrize(
    "line", ["192.0.2.0,DE", "DE", "a,b,DE", "192.0.2.9,192.0.2.1,DE", "192.0.2.1,::2,DE", "192.0.2.1,192.0.2.2", "é"]
)
def test_invalid_country_line_raises_an_error_with_its_place(line: str, tmp_path: Path) -> None:
    (file := tmp_path / "countries.csv").write_text("192.0.2.0,192.0.2.1,DE\n" + line + "\n", encoding="utf-8")
    with pytest.raises(InvalidCountryDatabaseError, match=r"countries.csv(:2: | cannot be read)"):
        Countries(file)
    with pytest.raises(InvalidCountryDatabaseError, match="nowhere"):
        Countries(tmp_path / "nowhere")


@pytest.mark.parametrize("written", [None, "", "de", "DEU", "XX", "T1", "D\n"])
def test_invalid_country_code_parses_to_none(written: str | None) -> None:
    assert parse_country_code(written) is None
    assert parse_country_code("DE") == "DE"
