"""Parsers of single values of the configuration."""

import hashlib
import ipaddress
import zoneinfo
from pathlib import Path
from urllib.parse import quote, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import PydanticCustomError
from sqlalchemy.engine import make_url

from edgeproxy.config import addresses, hub_settings, parsers, units
from edgeproxy.config.addresses import Address
from edgeproxy.config.collector import alerts, database_url
from edgeproxy.config.dimensions import A_VALUE, is_dimensions
from edgeproxy.config.edge import readers
from edgeproxy.config.edge.auth import Auth
from tests.config.conftest import refusal


@pytest.mark.parametrize("name", ["a", "7", "007", "acme", "Acme_Corp-2", "a" * 64])
def test_valid_name_is_read_unchanged(name):
    assert parsers.read_name(name) == name


@pytest.mark.parametrize("name", ["", "-", "_a", "a b", "a.b", "é", "a" * 65, "a\n", "٣"])
def test_an_invalid_name_is_refused(name):
    what, hint = refusal(parsers.read_name, name)
    assert what.endswith("is not a name")
    assert hint == parsers.A_NAME


@pytest.mark.parametrize("value", ["gpt-4.1", "meta-llama/Llama-3.3-70B", "llama3:8b", "!", "m" * 64])
def test_valid_values_of_dimensions_are_read(value):
    assert parsers.read_dimension_value(value) == value
    assert is_dimensions({"model": value})


@pytest.mark.parametrize("value", ["", "gpt 5", "~other", "é", "m" * 65, "m\n"])
def test_an_invalid_value_of_a_dimension_is_refused(value):
    what, hint = refusal(parsers.read_dimension_value, value)
    assert what.endswith("is not a value of a dimension")
    assert hint == A_VALUE


@pytest.mark.parametrize("pattern", ["", "a b", "a\n"])
def test_a_route_pattern_with_spaces_is_refused(pattern):
    what, hint = refusal(parsers.read_route_pattern, pattern)
    assert what.endswith("is not the name of a route")
    assert hint == parsers.A_ROUTE


def test_scopes_may_have_punctuation():
    assert parsers.read_scope("orders:read/all") == "orders:read/all"
    assert refusal(parsers.read_scope, "a b") == ("'a b' is not a scope", parsers.A_SCOPE)


@pytest.mark.parametrize(
    ("written", "address"),
    [
        ("127.0.0.1:8080", Address("127.0.0.1", 8080)),
        ("0.0.0.0:0", Address("0.0.0.0", 0)),
        ("[::]:8080", Address("::", 8080)),
        ("[2001:DB8:0::1]:65535", Address("2001:db8::1", 65535)),
        ("LocalHost:80", Address("localhost", 80)),
    ],
)
def test_valid_address_is_parsed(written, address):
    assert addresses.read_address(written) == address
    assert addresses.read_address(address) is address
    assert addresses.read_address(str(address)) == address


@pytest.mark.parametrize(
    "written",
    [
        "8080",
        ":8080",
        "127.0.0.1",
        "127.0.0.1:65536",
        "127.0.0.1:http",
        "::1:80",
        "[::1]",
        "[::x]:80",
        "1.2.3:80",
        "a b:80",
        "127.0.0.1:٣",
        "256.0.0.1:80",
        "http://a:80",
    ],
)
def test_an_invalid_address_is_refused(written):
    assert refusal(addresses.read_address, written) == (
        f"{written!r} is not an address with a port",
        "HOST:PORT such as 127.0.0.1:8080 or [::1]:8080",
    )


@given(st.ip_addresses(), st.integers(0, 65535))
def test_every_ip_address_is_read_as_it_was_written(ip, port):
    address = Address(str(ip), port)
    assert addresses.read_address(str(address)) == address


def test_valid_network_is_parsed():
    assert addresses.read_network("10.0.0.0/8") == ipaddress.ip_network("10.0.0.0/8")
    assert addresses.read_network("10.1.2.3") == ipaddress.ip_network("10.1.2.3/32")
    assert addresses.read_network("fd00::/8") == ipaddress.ip_network("fd00::/8")
    assert addresses.read_network("::ffff:10.0.0.0/104") == ipaddress.ip_network("10.0.0.0/8")
    assert addresses.read_network("::ffff:10.1.2.3") == ipaddress.ip_network("10.1.2.3/32")
    assert addresses.read_network("::/0") == ipaddress.ip_network("::/0")
    assert refusal(addresses.read_network, "10.0.0.1/8") == (
        "'10.0.0.1/8' has bits below its prefix",
        "the network is 10.0.0.0/8",
    )
    assert refusal(addresses.read_network, "10.0.0.0/33") == (
        "'10.0.0.0/33' is not an address or a network",
        addresses.A_NETWORK,
    )


def test_hosts_are_in_lower_case_without_a_trailing_dot():
    assert readers.read_host("API.Example.com.") == "api.example.com"
    assert readers.read_host("*.Example.com") == "*.example.com"
    assert readers.read_host("127.0.0.1") == "127.0.0.1"


@pytest.mark.parametrize("host", ["", "*", "a..b", "a:80", "-a", "a.*.b", "**.a", "é.com", "a" * 64, "a." * 127 + "a"])
def test_an_invalid_host_is_refused(host):
    what, hint = refusal(readers.read_host, host)
    assert what.endswith("is not a host name")
    assert hint == "a name such as api.example.com, or *.example.com, without a port"


@pytest.mark.parametrize("host", ["pass", "upstream", "api.internal", "API.internal:8080", "127.0.0.1:1"])
def test_valid_hosts_sent_to_upstreams_are_read(host):
    assert readers.read_sent_host(host) == host.lower()


@pytest.mark.parametrize("host", ["", "a b", "a:", "a:x", "a:0", "a:65536", "a:1:2", "http://a", "a\r\nX: 1", "*.a"])
def test_an_invalid_host_sent_to_upstreams_is_refused(host):
    what, hint = refusal(readers.read_sent_host, host)
    assert what.endswith("is not a host name")
    assert hint == readers.A_SENT_HOST


@pytest.mark.parametrize(
    "path", ["/", "/*", "/v1", "/v1/", "/v1/*", "//a//b", "/a;v=1/~x", "/...", "/a..b", "/.well-known/*"]
)
def test_valid_path_is_read_unchanged(path):
    assert readers.read_path(path) == path


FORMS_OF_WILDCARDS = "only a last /* stands for all that follows, and in the path of a route /*/ for one segment"


@pytest.mark.parametrize(
    ("path", "what", "hint"),
    [
        ("v1", "'v1' does not begin with /", readers.A_PATH),
        ("", "'' does not begin with /", readers.A_PATH),
        ("/a b", "'/a b' has a space, or another character that no request's path has", readers.A_PATH),
        ("/é", "'/é' has a space, or another character that no request's path has", readers.A_PATH),
        ("/<a>", "'/<a>' has a space, or another character that no request's path has", readers.A_PATH),
        ("/%41", "'/%41' has %", "write the character itself, or let a prefix end before it"),
        ("/a?b", "'/a?b' has ?", "routes look at paths, not at queries"),
        ("/a#b", "'/a#b' has #", "a request's path never has one"),
        ("/a\\b", "'/a\\\\b' has \\", "write /"),
        ("/a*", "'/a*' has *", FORMS_OF_WILDCARDS),
        ("/*/a", "'/*/a' has *", FORMS_OF_WILDCARDS),
        ("/a/../b", "'/a/../b' has a dot segment", "write the path that it leads to"),
        ("/./*", "'/./*' has a dot segment", "write the path that it leads to"),
        ("/a/..;x", "'/a/..;x' has a dot segment", "write the path that it leads to"),
    ],
)
def test_an_invalid_path_is_refused_with_the_reason(path, what, hint):
    assert refusal(readers.read_path, path) == (what, hint)


def test_only_forwarded_methods_are_read():
    assert readers.read_method("PATCH") == "PATCH"
    assert refusal(readers.read_method, "get") == ("'get' is not a method that the edge forwards", "write GET")
    assert refusal(readers.read_method, "CONNECT") == (
        "'CONNECT' is not a method that the edge forwards",
        readers.A_METHOD,
    )
    assert refusal(readers.read_method, "trace") == ("'trace' is not a method that the edge forwards", readers.A_METHOD)
    assert refusal(readers.read_method, "A B") == ("'A B' is not a method that the edge forwards", readers.A_METHOD)
    assert [readers.read_method(method) for method in ("PROPFIND", "BREW")] == ["PROPFIND", "BREW"]


def test_protocols_that_carry_http_are_refused():
    assert [readers.read_protocol(name) for name in ("websocket", "SPDY/3.1")] == ["websocket", "SPDY/3.1"]
    assert refusal(readers.read_protocol, "a b") == ("'a b' is not a protocol", readers.A_PROTOCOL)
    for name in ("h2c", "H2C", "h2", "HTTP/2.0", "TLS/1.0"):
        what, hint = refusal(readers.read_protocol, name)
        assert what == f"'{name}' is HTTP again, in which requests would pass unseen"
        assert hint == "leave it out"


@pytest.mark.parametrize(
    ("written", "origin"),
    [
        ("http://10.0.0.5:9001", "http://10.0.0.5:9001"),
        ("http://API.internal/", "http://api.internal:80"),
        ("http://[::1]:9001", "http://[::1]:9001"),
        ("https://API.internal", "https://api.internal:443"),
        ("HTTPS://10.0.0.5:9443/", "https://10.0.0.5:9443"),
        ("https://[::1]", "https://[::1]:443"),
    ],
)
def test_origins_have_a_port(written, origin):
    assert addresses.read_origin(written) == addresses.read_origin(origin) == origin


@pytest.mark.parametrize(
    ("written", "what", "hint"),
    [
        ("10.0.0.5:9001", "'10.0.0.5:9001' is not an http or https URL", addresses.AN_ORIGIN),
        ("ftp://a", "'ftp://a' is not an http or https URL", addresses.AN_ORIGIN),
        ("http://", "'http://' is not an http or https URL", addresses.AN_ORIGIN),
        ("https://", "'https://' is not an http or https URL", addresses.AN_ORIGIN),
        ("https:/a", "'https:/a' is not an http or https URL", addresses.AN_ORIGIN),
        ("https://me:secret@a", "has a user or a password", addresses.AN_ORIGIN),
        ("http://a:x", "'http://a:x' is not a URL", addresses.AN_ORIGIN),
        ("http://[a", "'http://[a' is not a URL", addresses.AN_ORIGIN),
        ("http://me:secret@a", "has a user or a password", addresses.AN_ORIGIN),
        ("http://a/v1", "'http://a/v1' has a path", f"{addresses.AN_ORIGIN}: that is the endpoint's path"),
        ("http://a?b", "'http://a?b' has a path", f"{addresses.AN_ORIGIN}: that is the endpoint's path"),
        ("http://a:0", "'http://a:0' has no host, or a port that cannot be", addresses.AN_ORIGIN),
        ("http://:80", "'http://:80' has no host, or a port that cannot be", addresses.AN_ORIGIN),
        ("http://a_b c", "'http://a_b c' has no host, or a port that cannot be", addresses.AN_ORIGIN),
    ],
)
def test_an_invalid_origin_is_refused_with_the_reason(written, what, hint):
    assert refusal(addresses.read_origin, written) == (what, hint)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("http://127.0.0.1:9100", "http://127.0.0.1:9100"),
        ("https://Collector.Example/", "https://collector.example:443"),
        ("http://[::1]", "http://[::1]:80"),
    ],
)
def test_a_collector_has_a_port_once_read(written, read):
    assert addresses.read_collector(written) == addresses.read_collector(read) == read


def test_a_collector_with_a_path_or_credentials_is_refused():
    assert refusal(addresses.read_collector, "http://a/v1/batches") == (
        "'http://a/v1/batches' has a path",
        "http://HOST:PORT such as http://127.0.0.1:9100, or https://HOST:PORT: the edge knows where batches go",
    )
    assert refusal(addresses.read_collector, "https://me:secret@a") == (
        "has a user or a password",
        addresses.A_COLLECTOR,
    )


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("memory://", "memory://"),
        ("Memory://", "memory://"),
        ("redis://Redis.Example", "redis://redis.example:6379/0"),
        ("REDISS://10.0.0.5:7000/", "rediss://10.0.0.5:7000/0"),
        ("redis://localhost:6379/015", "redis://localhost:6379/15"),
        ("redis://[::1]", "redis://[::1]:6379/0"),
        ("redis://@h", "redis://h:6379/0"),
        ("redis://me@h", "redis://me@h:6379/0"),
        ("redis://:p@h", "redis://:p@h:6379/0"),
        ("rediss://Me:P%2Fa%3As%40s@h/1", "rediss://Me:P%2Fa%3As%40s@h:6379/1"),
        ("redis+cluster://Redis.Example", "redis+cluster://redis.example:6379"),
        ("Redis+Cluster://a:7000,b,[::1]:7001,[::2]/", "redis+cluster://a:7000,b:6379,[::1]:7001,[::2]:6379"),
        ("rediss+cluster://me:p,q@a,10.0.0.5:7000", "rediss+cluster://me:p,q@a:6379,10.0.0.5:7000"),
        ("redis+sentinel://a,b:1/hub", "redis+sentinel://a:26379,b:1/hub/0"),
        ("rediss+sentinel://me:p@[::1]/hub.a_1/3", "rediss+sentinel://me:p@[::1]:26379/hub.a_1/3"),
    ],
)
def test_a_hub_has_a_port_and_a_database_once_read(written, read):
    assert hub_settings.read_hub_url(written) == hub_settings.read_hub_url(read) == read


@pytest.mark.parametrize(
    ("written", "what"),
    [
        ("", "is not the URL of a hub"),
        ("memory", "is not the URL of a hub"),
        ("memory://a", "is not the URL of a hub"),
        ("redis:h", "is not the URL of a hub"),
        ("redis://", "is not the URL of a hub"),
        ("http://h", "is not the URL of a hub"),
        ("redis://h:x", "has no host, or a port that cannot be"),
        ("redis://[h", "has no host, or a port that cannot be"),
        ("redis://a,b", "has no host, or a port that cannot be"),
        ("redis+cluster://", "is not the URL of a hub"),
        ("redis+cluster://a,", "has no host, or a port that cannot be"),
        ("redis+sentinel://a", "has no name of a service, or a database that is no number"),
        ("redis+sentinel://a/", "has no name of a service, or a database that is no number"),
        ("redis+sentinel://a/hub/x", "has no name of a service, or a database that is no number"),
        ("redis+cluster://a/0", "has a path, and a cluster has no databases"),
        ("redis+cluster://a?tls=true", "has a ? or a #"),
        ("redis://h/a", "has a path that is not the number of a database"),
        ("redis://h/0/", "has a path that is not the number of a database"),
        ("redis://h/123456", "has a path that is not the number of a database"),
        ("redis://h:0", "has no host, or a port that cannot be"),
        ("redis://h?db=1", "has a ? or a #"),
        ("redis://h#1", "has a ? or a #"),
        ("redis://a b", "has white space"),
    ],
)
def test_an_invalid_hub_is_refused_with_the_reason(written, what):
    assert refusal(hub_settings.read_hub_url, written) == (what, hub_settings.A_HUB)


def test_a_repeated_cluster_node_is_refused():
    assert refusal(hub_settings.read_hub_url, "redis+cluster://A,a:6379") == (
        "names a node twice",
        "leave one of them out",
    )


@pytest.mark.parametrize(
    ("written", "url"),
    [
        ({"service": "hub", "sentinel": ["a", "b:1"]}, "redis+sentinel://a,b:1/hub"),
        ({"service": "hub", "sentinel": "a"}, "redis+sentinel://a/hub"),
        ({"url": "rediss://hub", "sentinel": ("a", "b")}, "rediss+sentinel://a,b/hub"),
        ({"url": "redis://me:p%40w@hub/3", "sentinel": ["a"]}, "redis+sentinel://me:p%40w@a/hub/3"),
    ],
)
def test_a_hub_of_sentinels_may_be_written_as_a_mapping(written, url):
    assert hub_settings.read_hub(written) == written | {"url": url}


@pytest.mark.parametrize("written", [{"url": "redis://h"}, {"url": "redis://h", "sentinel": []}, 5])
def test_a_hub_without_sentinels_is_read_as_it_was_written(written):
    assert hub_settings.read_hub(written) == written


@pytest.mark.parametrize(
    "raw", ["a/b", "1/b", "?", "1/", "a@b", "a:b", "a#b", "100%", "%zz", "%2", "%ff", "1@10.0.0.1:1/x", "@", ":"]
)
@pytest.mark.parametrize(
    ("read", "form"),
    [
        (hub_settings.read_hub_url, "redis://me:{}@h/0"),
        (hub_settings.read_hub_url, "rediss+cluster://:{}@h,i"),
        (hub_settings.read_hub_url, "redis+sentinel://:{}@h,i/hub"),
        (database_url.read_database, "postgresql://me:{}@h/ledger"),
        (alerts.read_smtp, "smtps://me:{}@h"),
    ],
)
def test_raw_character_in_a_password_is_refused(read, form, raw):
    what, hint = refusal(read, form.format(raw))
    assert "raw character" in what or "not UTF-8" in what
    assert "%40 stands for @" in hint


@given(st.text(st.characters(blacklist_categories=("Cs",)), min_size=1))
def test_escaped_password_is_read_whole(password):
    """Each character has an escaped form in a URL."""
    read = hub_settings.read_hub_url(f"redis://me:{quote(password, safe='')}@h/0")
    assert unquote(hub_settings.HubUrl.parse(read).who) == f"me:{password}"
    url = database_url.read_database(f"postgresql://me:{quote(password, safe='')}@h/ledger")
    assert make_url(url).password == password


@pytest.mark.parametrize(
    ("url", "named", "secret"),
    [
        ("memory://", "memory://", False),
        ("redis://h:6379/0", "redis://h:6379/0", False),
        ("redis://me@h:6379/0", "redis://me@h:6379/0", False),
        ("redis://me:@h:6379/0", "redis://me@h:6379/0", False),
        ("redis://:p@h:6379/0", "redis://h:6379/0", True),
        ("rediss://me:p:q@r@[::1]:6379/1", "rediss://me@[::1]:6379/1", True),
        ("redis+cluster://me:p,q@a:1,[::1]:2", "redis+cluster://me@a:1,[::1]:2", True),
        ("redis+cluster://:p@a:1,b:2", "redis+cluster://a:1,b:2", True),
        ("rediss+cluster://a:1,b:2", "rediss+cluster://a:1,b:2", False),
    ],
)
def test_a_url_is_named_without_its_password(url, named, secret):
    assert (hub_settings.remove_password(url), hub_settings.has_password(url)) == (named, secret)


@pytest.mark.parametrize(
    ("origin", "here"),
    [
        ("http://127.0.0.1:9100", True),
        ("http://127.9.9.9:80", True),
        ("http://[::1]:80", True),
        ("http://localhost:80", True),
        ("http://collector.localhost:80", True),
        ("http://10.0.0.5:9100", False),
        ("http://[::2]:80", False),
        ("http://localhost.example:80", False),
    ],
)
def test_a_loopback_address_is_here(origin, here):
    assert addresses.is_local_url(origin) is here


def test_token_must_be_one_word_and_is_hidden():
    assert [parsers.read_token(written) for written in (None, "", "a.b-c")] == [None, None, "a.b-c"]
    for written, why in (
        ("a secret", "has white space"),
        ("secret\n\n", "has white space"),
        ("'secret'", "begins or ends with a quote"),
        ("sécret", "has characters that no token has, or too many"),
        ("s" * 8001, "has characters that no token has, or too many"),
    ):
        what, hint = refusal(parsers.read_token, written)
        assert what == why
        assert "cret" not in what + hint
    assert refusal(parsers.read_token, ["a"])[0] == "is not a single value"


@pytest.mark.parametrize("name", ["X-Cost", "x-usage_tokens", "A", "cost!#$%&'*+.^_`|~9"])
def test_valid_field_name_is_read_unchanged(name):
    assert parsers.read_field_name(name) == name


@pytest.mark.parametrize("name", ["", "X Cost", "X-Cost:", "(x)", "é", "a" * 65, "a\n"])
def test_an_invalid_field_name_is_refused(name):
    assert refusal(parsers.read_field_name, name) == (
        f"{units.format_value(name)} is not the name of a field",
        parsers.A_FIELD_NAME,
    )


def test_sentences_are_joined_into_one_line():
    assert parsers.read_sentence("  Schreib an\n\tsüd@example.com \n") == "Schreib an süd@example.com"
    assert parsers.read_sentence("x" * parsers.SENTENCE_CHARACTERS_MAX) == "x" * 500


@pytest.mark.parametrize(
    ("written", "what"),
    [
        ("", "has 0 characters"),
        (" \n", "has 0 characters"),
        ("x" * 501, "has 501 characters"),
        ("a\x07b", r"'a\x07b' has characters that cannot be printed"),
        ("a\ud800", r"'a\ud800' has characters that cannot be printed"),
        (["a"], "is not a single value"),
    ],
)
def test_an_invalid_sentence_is_refused(written, what):
    assert refusal(parsers.read_sentence, written) == (what, parsers.A_SENTENCE)


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/Argentina/Buenos_Aires", "Etc/GMT+5"])
def test_known_time_zone_is_accepted(zone):
    assert parsers.read_timezone(zone) == zone


@pytest.mark.parametrize(
    ("zone", "hint"),
    [
        ("Europe/Berln", "did you mean Europe/Berlin?"),
        ("+02:00", parsers.A_TIMEZONE),
        ("Europe", None),
        ("leapseconds", parsers.A_TIMEZONE),
        ("../UTC", parsers.A_TIMEZONE),
        ("/usr/share/zoneinfo/UTC", parsers.A_TIMEZONE),
        ("localtime", parsers.A_TIMEZONE),
        ("posixrules", parsers.A_TIMEZONE),
        ("right/UTC", None),
        ("posix/UTC", None),
        ("Factory", None),
        ("U\0TC", None),
        ("", parsers.A_TIMEZONE),
    ],
)
def test_an_unknown_time_zone_is_refused(zone, hint):
    what, instead = refusal(parsers.read_timezone, zone)
    assert what == f"{zone!r} is not a time zone"
    assert instead == hint or hint is None


def test_every_iana_time_zone_is_read():
    zones = [zone for zone in zoneinfo.available_timezones() if zone not in ("Factory", "localtime", "posixrules")]
    assert len(zones) > 400
    assert [parsers.read_timezone(zone) for zone in zones] == zones


@pytest.fixture
def only_in(monkeypatch):
    """`only_in(folder)` restricts the search for time zones to this folder, or to none, and to `tzdata`."""
    monkeypatch.setattr(parsers, "ZoneInfo", zoneinfo.ZoneInfo.no_cache)
    yield lambda *folder: zoneinfo.reset_tzpath(to=folder)
    zoneinfo.reset_tzpath()


def test_time_zones_are_known_without_those_of_the_system(only_in):
    only_in()
    assert parsers.read_timezone("Europe/Berlin") == "Europe/Berlin"
    assert refusal(parsers.read_timezone, "Europe/Berln")[1] == "did you mean Europe/Berlin?"


def test_other_files_beside_the_time_zones_are_no_time_zones(only_in, tmp_path):
    (tmp_path / "leapseconds").write_text("# Leap seconds")
    (tmp_path / "Moon").mkdir()
    only_in(str(tmp_path))
    for zone in ("leapseconds", "Moon"):
        assert refusal(parsers.read_timezone, zone)[0] == f"{zone!r} is not a time zone"


def test_digests_are_in_lower_case_and_errors_do_not_show_them():
    assert parsers.read_digest("AB" * 32) == "ab" * 32
    assert refusal(parsers.read_digest, "ek_live_oops") == (
        "has 12 characters that are not a SHA-256",
        parsers.A_DIGEST,
    )


def test_folders_are_paths():
    assert parsers.read_folder("var/edge") == "var/edge"
    assert refusal(parsers.read_folder, "") == ("'' is not a path", parsers.A_FOLDER)
    assert refusal(parsers.read_folder, "a\0b") == (r"'a\x00b' is not a path", parsers.A_FOLDER)


def test_files_are_paths():
    assert parsers.read_file("certs/edge.pem") == "certs/edge.pem"
    assert refusal(parsers.read_file, "") == ("'' is not a path", parsers.A_FILE)
    assert refusal(parsers.read_file, "a\nb") == (r"'a\nb' is not a path", parsers.A_FILE)
    assert refusal(parsers.read_file, ["a"]) == ("is not a single value", parsers.A_FILE)


@pytest.mark.parametrize("file", ["access.log", "/dev/stdout", "var/log/on", "-x", "1"])
def test_logs_are_files(file):
    assert readers.read_log(file) == file


def test_path_objects_are_read():
    for reader in (parsers.read_folder, parsers.read_file, readers.read_log):
        assert reader(Path("var/x")) == "var/x"


@pytest.mark.parametrize("file", ["true", "Yes", "on", "off", "-", "stdout", "var/log/"])
def test_words_and_folders_are_no_log_file(file):
    assert refusal(readers.read_log, file) == (f"{file!r} is not a file to write to", readers.A_LOG)
    assert refusal(readers.read_log, "") == ("'' is not a path", readers.A_LOG)


@pytest.mark.parametrize("target", ["/", "/healthz", "/a?b=c&d", "/%41/..;x", "//"])
def test_valid_probe_targets_are_read(target):
    assert parsers.read_target(target) == target


@pytest.mark.parametrize("target", ["", "healthz", "http://a/healthz", "/a b", "/a#b", "/é", "/a\r\nX: y", "*"])
def test_an_invalid_probe_target_is_refused(target):
    assert refusal(parsers.read_target, target) == (f"{target!r} is not a path that can be asked for", parsers.A_TARGET)


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("API.Internal.", "api.internal"),
        ("localhost", "localhost"),
        ("10.0.0.5", "10.0.0.5"),
        ("::1", "::1"),
        ("2001:DB8:0::1", "2001:db8::1"),
    ],
)
def test_the_name_of_a_server_is_a_host_or_an_ip_address(written, name):
    assert addresses.read_server_name(written) == addresses.read_server_name(name) == name


@pytest.mark.parametrize("name", ["", "*.a.example", "https://a", "a:443", "[::1]", "a b", "é"])
def test_an_invalid_server_name_is_refused(name):
    assert refusal(addresses.read_server_name, name) == (f"{name!r} is not a host name", addresses.A_SERVER_NAME)


def test_empty_secret_parses_to_none():
    assert parsers.read_secret("s") == "s"
    assert parsers.read_secret("") is None
    assert parsers.read_secret(None) is None
    assert refusal(parsers.read_secret, ["s"])[0] == "is not a single value"


def test_short_forms_become_lists_and_mappings():
    assert parsers.read_one_or_more("a") == ("a",)
    assert parsers.read_one_or_more(["a", "b"]) == ["a", "b"]
    assert parsers.read_listener("a:1") == {"address": "a:1"}
    assert parsers.read_listener({"address": "a:1"}) == {"address": "a:1"}
    assert readers.read_endpoint("http://a") == {"url": "http://a"}
    assert readers.read_endpoint(["x"]) == ["x"]


def test_a_url_is_no_listener():
    assert refusal(parsers.read_listener, "https://a:443") == ("'https://a:443' is a URL", parsers.A_LISTENER)


@pytest.mark.parametrize("word", ["off", "Off", "false", "no", "NO"])
def test_parts_are_switched_off_with_yamls_words(word):
    assert parsers.read_unless_off(word) is None
    assert readers.read_access_log(word) is None


def test_other_values_than_off_are_left_unchanged():
    assert parsers.read_unless_off({"errors": "5"}) == {"errors": "5"}
    assert parsers.read_unless_off("on") == "on"
    assert parsers.read_unless_off(None) is None
    assert readers.read_access_log("access.log") == {"file": "access.log"}
    assert readers.read_access_log({"file": "access.log"}) == {"file": "access.log"}
    assert readers.read_access_log(["x"]) == ["x"]
    assert parsers.read_or_off({"earn": "1/s"}) == {"earn": "1/s"}


@pytest.mark.parametrize("word", ["off", "OFF", "false", "no"])
def test_read_or_off_returns_off(word):
    assert parsers.read_or_off(word) == "off"
    assert parsers.get_union_tag("off") == "off"
    assert parsers.get_union_tag({"earn": "1/s"}) == parsers.get_union_tag("on") == parsers.GIVEN


@pytest.mark.parametrize(
    ("host", "known"),
    [("10.0.0.1", True), ("::1", True), ("api.internal", False), ("10.0.0.256", False), ("1.2.3", False)],
)
def test_is_address_tells_an_ip_address_from_a_name(host: str, known: bool) -> None:
    assert addresses.is_address(host) is known


def test_the_digest_of_an_empty_key_is_refused():
    with pytest.raises(PydanticCustomError, match="the SHA-256 of nothing"):
        parsers.read_digest(hashlib.sha256(b"").hexdigest().upper())


def test_how_to_send_a_key_is_reported_by_its_fields():
    assert Auth().key_instructions == "Send it as X-API-Key: KEY or Authorization: Bearer KEY"
    assert (
        Auth(fields=["authorization", "X-Key"]).key_instructions == "Send it as Authorization: Bearer KEY or X-Key: KEY"
    )


def test_stripped_field_is_a_name_or_a_prefix():
    assert [readers.read_stripped(name) for name in ("X-Internal-*", "CF-Connecting-IP")] == [
        *("X-Internal-*", "CF-Connecting-IP"),
    ]
