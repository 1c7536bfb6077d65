"""The address that a request counts for: the peer, or the client behind a trusted proxy."""

from ipaddress import ip_network

import pytest

from edgeproxy.base.addresses import subject_of
from edgeproxy.edge.http1.request import RequestHead
from edgeproxy.edge.limits.rule import Rule
from edgeproxy.edge.proxy.transport import address
from edgeproxy.edge.proxy.transport.address import Addresses, AddressSettings

GUARD = Rule("per_ip", 200, 1.0, scope="guard")


class Asked:
    """A fake of the policies of the address table. It returns its arguments."""

    def __init__(self) -> None:
        self.times = 0

    def get_policy(self, rule: Rule, subject: bytes) -> tuple[str, bytes]:
        self.times += 1
        return rule.name, subject


class RouteLimits:
    """A fake of a route's limits. It returns a new list with the subject each time."""

    def build_limit_set(self, subject: bytes) -> list[bytes]:
        return [subject]


class Binding:
    """A fake of a route binding, with the attributes that an address reads."""

    def __init__(self) -> None:
        self.limits = RouteLimits()
        self.networks = None


def addresses(*trusted: str, guard: Rule | None = GUARD) -> Addresses:
    return Addresses(Asked(), AddressSettings(tuple(ip_network(network) for network in trusted), guard))


def head(**said: bytes) -> RequestHead:
    request_head = RequestHead()
    for name, value in said.items():
        setattr(request_head, name, value)
    return request_head


# ---- trust


def test_no_proxy_is_trusted_by_default() -> None:
    assert not addresses().trusts("127.0.0.1")
    assert not addresses().trusts("::1")


def test_addresses_inside_a_trusted_network_are_trusted() -> None:
    some = addresses("10.0.0.0/8", "192.0.2.7/32", "2001:db8::/32")
    for peer in ("10.0.0.1", "10.255.255.255", "192.0.2.7", "2001:db8::1", "::ffff:10.1.2.3"):
        assert some.trusts(peer), peer
    for peer in ("11.0.0.1", "192.0.2.8", "2001:db9::1", "::ffff:11.1.2.3", "", "garbage"):
        assert not some.trusts(peer), peer


# ---- the client behind trusted proxies


def test_the_client_is_the_rightmost_untrusted_entry() -> None:
    some = addresses("10.0.0.0/8")
    assert some.find_client("10.0.0.1", b"192.0.2.1") == "192.0.2.1"
    assert some.find_client("10.0.0.1", b"192.0.2.1, 10.0.0.9") == "192.0.2.1"
    assert some.find_client("10.0.0.1", b"192.0.2.1, 10.0.0.9, 10.0.0.8") == "192.0.2.1"


def test_entries_forged_by_the_client_are_ignored() -> None:
    some = addresses("10.0.0.0/8")
    assert some.find_client("10.0.0.1", b"198.51.100.66, 192.0.2.1") == "192.0.2.1"
    assert some.find_client("10.0.0.1", b"10.9.9.9, 192.0.2.1, 10.0.0.2") == "192.0.2.1"


def test_the_leftmost_entry_is_the_client_if_all_are_trusted() -> None:
    assert addresses("10.0.0.0/8").find_client("10.0.0.1", b"10.0.0.5, 10.0.0.6") == "10.0.0.5"


def test_without_entries_the_proxy_itself_is_the_client() -> None:
    some = addresses("10.0.0.0/8")
    assert some.find_client("10.0.0.1", None) == "10.0.0.1"
    assert some.find_client("10.0.0.1", b"") == "10.0.0.1"


@pytest.mark.parametrize("entry", [b"unknown", b"_hidden", b"256.1.1.1", b"a.b", b"\xff\xfe", b"1.2.3", b"::g", b" "])
def test_invalid_forwarded_entry_counts_as_its_proxy_address(entry: bytes) -> None:
    some = addresses("10.0.0.0/8")
    assert some.find_client("10.0.0.1", entry) == "10.0.0.1"
    assert some.find_client("10.0.0.1", entry + b", 10.0.0.9") == "10.0.0.9"
    assert some.find_client("10.0.0.1", entry + b", 192.0.2.1") == "192.0.2.1"


def test_ports_brackets_and_whitespace_of_an_entry_are_ignored() -> None:
    some = addresses("10.0.0.0/8")
    for entry in (b"192.0.2.1:4711", b"\t192.0.2.1 ", b"::ffff:192.0.2.1", b"[::ffff:192.0.2.1]:80"):
        assert some.find_client("10.0.0.1", entry) == "192.0.2.1", entry
    for entry in (b"2001:db8::1", b"[2001:db8::1]", b"[2001:db8::1]:443", b"2001:DB8:0::1"):
        assert some.find_client("10.0.0.1", entry) == "2001:db8::1", entry


def test_the_zone_of_an_entry_is_ignored() -> None:
    assert addresses("10.0.0.0/8").find_client("10.0.0.1", b'fe80::1%"}\xff') == "fe80::1"


def test_an_entry_with_a_port_is_still_recognised_as_a_trusted_proxy() -> None:
    assert addresses("10.0.0.0/8").find_client("10.0.0.1", b"192.0.2.1, 10.0.0.9:1234") == "192.0.2.1"


# ---- the forwarded fields


def test_the_proxy_is_appended_to_x_forwarded_for() -> None:
    client, lines = addresses("10.0.0.0/8").resolve_forwarded(
        "10.0.0.1", head(forwarded_for=b"203.0.113.9, 192.0.2.1", forwarded_proto=b"https")
    )
    assert client == "192.0.2.1"
    assert lines == (b"X-Forwarded-For: 203.0.113.9, 192.0.2.1, 10.0.0.1\r\nX-Forwarded-Proto: https\r\nX-Request-Id: ")


def test_a_proxy_without_forwarding_fields_is_the_client() -> None:
    client, lines = addresses("10.0.0.0/8").resolve_forwarded("10.0.0.1", head())
    assert client == "10.0.0.1"
    assert lines == b"X-Forwarded-For: 10.0.0.1\r\nX-Forwarded-Proto: http\r\nX-Request-Id: "


# ---- limits of an address


def test_an_address_has_the_guard_of_its_subject() -> None:
    assert addresses().get_address("192.0.2.1").guard == ("per_ip", subject_of("192.0.2.1"))


def test_an_addresss_limit_set_on_a_route_is_cached() -> None:
    found, binding = addresses().get_address("192.0.2.1"), Binding()
    terms = found.get_limit_set(binding)
    assert terms == [subject_of("192.0.2.1")]
    assert found.get_limit_set(binding) is terms
    assert found.get_limit_set(Binding()) is not terms


def test_the_cached_limit_sets_of_an_address_are_bounded() -> None:
    found, binding = addresses().get_address("192.0.2.1"), Binding()
    terms = found.get_limit_set(binding)
    for _ in range(4 * address.LIMIT_SETS_MAX):
        found.get_limit_set(Binding())
        assert found.get_limit_set(binding) is terms, "a limit set in use stays cached"
    for _ in range(address.LIMIT_SETS_MAX):
        found.get_limit_set(Binding())
    assert found.get_limit_set(binding) is not terms


def test_forget_bindings_clears_cached_limit_sets() -> None:
    some, binding = addresses(), Binding()
    terms = some.get_address("192.0.2.1").get_limit_set(binding)
    some.forget_bindings()
    assert some.get_address("192.0.2.1").get_limit_set(binding) is not terms


def test_equal_settings_of_addresses_compare_equal() -> None:
    networks = (ip_network("10.0.0.0/8"),)
    some = addresses("10.0.0.0/8")
    assert some.settings == AddressSettings(networks, Rule("per_ip", 200, 1.0, scope="guard"))
    assert some.settings != AddressSettings((), GUARD)
    assert some.settings != AddressSettings(networks, Rule("per_ip", 100, 1.0, scope="guard"))
    assert some.settings != AddressSettings(networks, GUARD, prefix=56)


def test_without_a_guard_rule_an_address_has_no_guard() -> None:
    assert addresses(guard=None).get_address("192.0.2.1").guard is None


def test_an_address_is_cached() -> None:
    some = addresses()
    assert some.get_address("192.0.2.1") is some.get_address("192.0.2.1")


def test_the_cache_of_addresses_evicts_the_least_recently_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(address, "ADDRESSES_MAX", 2)
    some = addresses()
    first, second = some.get_address("192.0.2.1"), some.get_address("192.0.2.2")
    some.get_address("192.0.2.1")
    some.get_address("192.0.2.3")
    assert some.get_address("192.0.2.1") is first
    assert some.get_address("192.0.2.2") is not second
