"""Equal addresses, and addresses that count as one client."""

from ipaddress import ip_address, ip_network

import pytest

from edgeproxy.base.addresses import parse_ip, subject_of


def test_ip_address_is_parsed_without_a_port() -> None:
    assert str(parse_ip("::ffff:10.0.0.1")) == "10.0.0.1"
    assert str(parse_ip("2001:db8::1")) == "2001:db8::1"
    assert parse_ip("10.0.0.01") is None
    assert parse_ip("") is None


def test_ipv4_mapped_address_counts_as_its_ipv4_address() -> None:
    assert subject_of("192.0.2.1") == b"\xc0\x00\x02\x01"
    assert subject_of("::ffff:192.0.2.1") == subject_of("192.0.2.1")
    assert subject_of("192.0.2.2") != subject_of("192.0.2.1")


def test_ipv6_is_counted_by_its_first_64_bits() -> None:
    assert subject_of("2001:db8:1:2::1") == subject_of("2001:db8:1:2:ffff:ffff:ffff:ffff")
    assert subject_of("2001:db8:1:2::1") != subject_of("2001:db8:1:3::1")
    assert len(subject_of("2001:db8::1")) == 8


@pytest.mark.parametrize(("bits", "size"), [(40, 5), (48, 6), (56, 7), (60, 8), (128, 16)])
def test_how_much_of_an_ipv6_address_counts_is_configured(bits: int, size: int) -> None:
    address = ip_address("2001:db8:1:2f::1")
    first, last = (str(ip_network((address, bits), strict=False)[n]) for n in (0, -1))
    assert subject_of(first, bits) == subject_of(last, bits)
    assert len(subject_of(first, bits)) == size
    assert subject_of(str(ip_address(last) + 1), bits) != subject_of(first, bits)
    assert subject_of("192.0.2.1", bits) == subject_of("192.0.2.1")


def test_the_two_families_never_share_a_subject() -> None:
    assert len({len(subject_of(each)) for each in ("192.0.2.1", "2001:db8::1")}) == 2


def test_something_that_is_no_address_still_has_a_subject() -> None:
    assert subject_of("somewhere") == b"somewhere"
