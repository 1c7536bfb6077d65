"""The configuration as the rest of the edge sees it."""

import pytest
from pydantic import ValidationError

from edgeproxy.config.kinds import Address
from edgeproxy.config.models import Endpoint, Limit, Meter, PerIp, Route
from edgeproxy.config.units import Rate, cores


def test_what_is_left_out_has_its_default(loaded):
    settings = loaded("")
    assert settings.region == "local"
    assert settings.listen == (Address("127.0.0.1", 8080),)
    assert settings.admin is None
    assert settings.workers == cores()
    assert str(settings.state) == "var/edge"
    assert settings.trusted_proxies == ()
    assert settings.per_ip is None
    assert settings.meters == {"requests": Meter(count="requests", when="answered")}
    assert (settings.tiers, settings.customers, settings.keys) == ({}, {}, ())
    upstream = settings.upstreams["api"]
    assert (upstream.pool, upstream.forward_key) == (256, False)
    assert tuple(vars(upstream.timeouts).values()) == (1.0, 30.0, 60.0)
    assert vars(settings.routes[0]) == {
        "name": None, "host": None, "path": "/*", "methods": None, "upstream": "api", "auth": "required",
        "scopes": frozenset(),
    }  # fmt: skip
    assert vars(settings.tables) == {"dir": None, "people": 200_000, "addresses": 200_000}
    assert vars(settings.limits) == {
        "head": 32768, "fields": 100, "body": None, "header_timeout": 10.0, "body_idle": 60.0, "keepalive_idle": 75.0,
    }  # fmt: skip
    assert (settings.drain, settings.legacy_headers, settings.stamp_secret) == (30.0, False, None)


def test_values_are_in_their_plain_units(loaded):
    settings = loaded(
        """\
region: no
listen: [0.0.0.0:80, {address: "[::]:80"}]
admin: localhost:9090
workers: "${WORKERS:-3}"
state: /var/lib/edge
trusted_proxies: [10.0.0.0/8, "fd00::/8", 192.0.2.1]
per_ip: {rate: 200/s}
meters: {hits: {count: requests, when: admitted}}
tiers: {basic: {limits: [{rate: 60/min}]}, none: {}}
customers: {007: {tier: basic, limits: []}}
keys:
  - sha256: ABABABABABABABABABABABABABABABABABABABABABABABABABABABABABABABAB
    customer: 007
    scopes: [read, "a:b"]
    expires: 2027-01-01
tables: {dir: /dev/shm/edge, people: 10, addresses: "20"}
limits: {head: 64KiB, fields: 50, body: 10MiB, header_timeout: 500ms, body_idle: 1min, keepalive_idle: 1h}
drain: 0s
legacy_headers: yes
stamp_secret: ${SECRET}
""",
        {"SECRET": "s3cret"},
    )
    assert settings.region == "no"
    assert settings.listen == (Address("0.0.0.0", 80), Address("::", 80))
    assert settings.admin == Address("localhost", 9090)
    assert settings.workers == 3
    assert [str(network) for network in settings.trusted_proxies] == ["10.0.0.0/8", "fd00::/8", "192.0.2.1/32"]
    assert (settings.per_ip.count, settings.per_ip.window) == (200, 1.0)
    limit = settings.tiers["basic"].limits[0]
    assert (limit.name, limit.count, limit.window, limit.algorithm) == ("basic", 60, 60.0, "sliding_window")
    assert settings.customers["007"].limits == ()
    key = settings.keys[0]
    assert (key.sha256, key.customer, key.scopes, key.expires) == ("ab" * 32, "007", {"read", "a:b"}, 1798761600.0)
    assert (str(settings.tables.dir), settings.tables.people, settings.tables.addresses) == ("/dev/shm/edge", 10, 20)
    assert tuple(vars(settings.limits).values()) == (65536, 50, 10 << 20, 0.5, 60.0, 3600.0)
    assert (settings.drain, settings.legacy_headers, settings.stamp_secret) == (0.0, True, "s3cret")
    assert "s3cret" not in repr(settings)


def test_settings_cannot_be_changed(loaded):
    with pytest.raises(ValidationError):
        loaded("").region = "other"


def test_a_limit_has_a_count_and_a_window():
    rate = Rate(5, 2.0)
    assert [(some.count, some.window) for some in (Limit(rate=rate, name="x"), PerIp(rate=rate))] == [(5, 2.0)] * 2


@pytest.mark.parametrize(
    ("url", "host", "port", "authority"),
    [
        ("http://api.internal", "api.internal", 80, "api.internal:80"),
        ("http://[::1]:9001/", "::1", 9001, "[::1]:9001"),
    ],
)
def test_an_endpoint_has_a_host_and_a_port(url, host, port, authority):
    endpoint = Endpoint(url=url)
    assert (endpoint.host, endpoint.port, endpoint.authority) == (host, port, authority)


def test_a_route_has_a_label_and_may_have_a_prefix():
    assert Route(path="/v1/*", upstream="api").label == "/v1/*"
    assert Route(path="/v1/*", upstream="api", host="A.example").label == "a.example/v1/*"
    assert Route(path="/v1/*", upstream="api", name="v1").label == "v1"
    assert Route(path="/v1/*", upstream="api").prefix == "/v1/"
    assert Route(path="/v1", upstream="api").prefix is None


def test_a_customers_own_limits_replace_the_tiers(loaded):
    settings = loaded(
        "tiers: {t: {limits: [{rate: 1/s}]}}\n"
        "customers: {a: {tier: t}, b: {tier: t, limits: [{rate: 2/s}]}, c: {tier: t, limits: []}}\n"
    )
    assert [[limit.count for limit in settings.limits_of(customer)] for customer in "abc"] == [[1], [2], []]
