"""Lists of networks in the configuration and in files, and rules about requests."""

import pytest

from edgeproxy.config.addresses import split_address
from tests.config.conftest import LEAST

UPSTREAM = LEAST.splitlines()[0] + "\n"
LIST = "# dropped\n192.0.2.0/24  # a test\n\n2001:db8::/32\n"


def test_network_list_file_is_part_of_the_configuration(loaded):
    text = "networks: {deny: [10.0.0.1], deny_file: drop.txt, allow_file: in.txt}"
    settings = loaded(text, files={"drop.txt": LIST, "in.txt": "0.0.0.0/0"})
    assert [str(network) for network in settings.networks.deny] == ["10.0.0.1/32", "192.0.2.0/24", "2001:db8::/32"]
    assert [str(network) for network in settings.networks.allow] == ["0.0.0.0/0"]
    # A reload must notice a change in the list file alone.
    assert loaded(text, files={"drop.txt": LIST + "::1", "in.txt": "0.0.0.0/0"}).sha256 != settings.sha256


def test_lists_of_routes_and_customers_may_be_in_files_too(loaded):
    text = (
        UPSTREAM + "tiers: {t: {}}\ncustomers: {a: {tier: t, networks: {allow_file: in.txt}}}\n"
        "routes: [{path: /a, upstream: api}, {path: /b, upstream: api, networks: {deny_file: in.txt}}]"
    )
    settings = loaded(text, files={"in.txt": "::1"}, alone=True)
    assert [str(network) for network in settings.customers["a"].networks.allow] == ["::1/128"]
    assert [str(network) for network in settings.routes[1].networks.deny] == ["::1/128"]
    assert settings.routes[0].networks is None


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("10.0.0.1\n10.0.0.1/8\n",
         "line 2 of drop.txt: '10.0.0.1/8' has bits below its prefix, the network is 10.0.0.0/8"),
        ("elsewhere", "line 1 of drop.txt: 'elsewhere' is not an address or a network, an address or a network such as "
         "10.0.0.0/8"),
    ],
)  # fmt: skip
def test_a_line_that_is_no_network_is_named(problems, content, problem):
    text = LEAST + "networks: {deny_file: drop.txt}"
    assert problems(text, files={"drop.txt": content}) == [f"edge.yaml:3: networks.deny_file: {problem}"]


def test_a_list_that_is_not_there_is_named(problems):
    assert problems(LEAST + "networks: {deny_file: drop.txt}") == [
        "edge.yaml:3: networks.deny_file: drop.txt cannot be read: No such file or directory, "
        "name a file that can be read"
    ]
    assert len(problems(LEAST + "networks: {deny: x, deny_file: drop.txt}", files={"drop.txt": "::1"})) == 1
    assert len(problems(LEAST + "networks: [x]")) == 1


@pytest.mark.parametrize(
    ("rule", "problem"),
    [
        ("{name: a}", "rules.0: is about every request, write path, methods, field or larger"),
        ("{name: a, path: /, contains: x}", "rules.0.contains: is of no field, write field: User-Agent"),
        ("{name: a, path: /, rate: 5/s}",
         "rules.0: has a rate without action: limit, or that without a rate, write both or neither"),
        ("{name: a, path: /, action: limit}",
         "rules.0: has a rate without action: limit, or that without a rate, write both or neither"),
        ("{name: a, path: /}, {name: a, path: /b}",
         "rules.1.name: is defined already at edge.yaml:3, give one of them another name"),
    ],
)  # fmt: skip
def test_rules_that_cannot_be_meant(problems, rule, problem):
    assert problems(LEAST + f"rules: [{rule}]") == [f"edge.yaml:3: {problem}"]


def test_rules_that_can(problems):
    rules = (
        "{name: a, field: X-A, contains: b, action: limit, rate: 5/s}, {name: b, methods: [GET]}, {name: [c], path: /}"
    )
    assert len(problems(LEAST + f"rules: [{rules}]")) == 1  # the name that is none


def test_authorize_listener_needs_trusted_proxies(problems):
    text = LEAST + "listen: [127.0.0.1:1, {address: 127.0.0.1:2, authorize: %s}]\n"
    assert problems(text % "path") == [
        "edge.yaml:3: listen.1.authorize: is for trusted proxies alone, and there are none, "
        "write trusted_proxies: [10.0.0.2], the addresses of the proxies that ask"
    ]
    assert problems(text % "path" + "trusted_proxies: [10.0.0.2]") == []


def test_listener_with_the_proxy_protocol_needs_trusted_proxies(problems):
    text = LEAST + "listen: {address: 127.0.0.1:2, proxy_protocol: %s}\n"
    assert problems(text % "on") == [
        "edge.yaml:3: listen.proxy_protocol: is for trusted proxies alone, and there are none, "
        "write trusted_proxies: [10.0.0.2], the addresses of the proxies that send the header"
    ]
    assert problems(text % "off") == problems(text % "on" + "trusted_proxies: [10.0.0.2]") == []


def test_listener_accepts_one_kind_of_authorization_proxy(problems):
    text = LEAST + "trusted_proxies: [10.0.0.2]\nlisten: {address: 127.0.0.1:2, authorize: %s}\n"
    for authorize in ("true", "[original, forwarded]"):
        (problem,) = problems(text % authorize)
        assert problem.startswith("edge.yaml:4: listen.authorize: ")
        assert all(kind in problem for kind in ("original", "forwarded", "path"))


def test_authorize_listener_refuses_http2(problems):
    text = LEAST + "trusted_proxies: [10.0.0.2]\nlisten: {address: 127.0.0.1:2, authorize: path, http2: %s}\n"
    assert problems(text % "true") == [
        "edge.yaml:4: listen.http2: is not spoken where proxies ask, leave it out here: they ask over HTTP/1.1"
    ]
    assert problems(text % "false") == []


# ---- addresses to listen on


@pytest.mark.parametrize(
    ("written", "reachable"),
    [
        ("0.0.0.0:9", "127.0.0.1:9"),
        ("[::]:9", "[::1]:9"),
        ("[::2]:9", "[::2]:9"),
        ("edge.test:9", "edge.test:9"),
    ],
)
def test_listener_at_every_address_is_reached_at_loopback(written: str, reachable: str) -> None:
    address = split_address(written)
    assert address is not None
    assert str(address.reachable) == reachable
