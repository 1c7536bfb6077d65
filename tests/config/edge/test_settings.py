"""The configuration as the rest of the edge sees it."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from edgeproxy.config.addresses import Address
from edgeproxy.config.allowance import compute_allowance
from edgeproxy.config.customers import Paused, Regions
from edgeproxy.config.edge.admin import Admin
from edgeproxy.config.edge.routes import Route
from edgeproxy.config.edge.settings import PerIp
from edgeproxy.config.edge.upstreams import Endpoint
from edgeproxy.config.hub_settings import Hub
from edgeproxy.config.limits import BurstCredits, Limit, Quota
from edgeproxy.config.tls import Certificate
from edgeproxy.config.units import Rate


@pytest.fixture
def reads_files():
    return False


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
tables: {dir: /dev/shm/edge, customers: 10, addresses: "20"}
limits: {head: 64KiB, fields: 50, body: 10MiB, header_timeout: 500ms, body_idle: 1min, keepalive_idle: 1h,
  connections: 1000, connections_per_ip: 10, pipelined: 1}
security_headers: on
drain: 0s
legacy_headers: yes
stamp_secret: ${SECRET}
""",
        {"SECRET": "s3cret"},
    )
    assert settings.region == "no"
    assert [listener.address for listener in settings.listen] == [Address("0.0.0.0", 80), Address("::", 80)]
    assert settings.admin == Admin(address=Address("localhost", 9090))
    assert settings.workers == 3
    assert [str(network) for network in settings.trusted_proxies] == ["10.0.0.0/8", "fd00::/8", "192.0.2.1/32"]
    assert (settings.per_ip.count, settings.per_ip.window) == (200, 1.0)
    limit = settings.tiers["basic"].limits[0]
    assert (limit.count, limit.window) == (60, 60.0)
    assert {name: value for name, value in vars(limit).items() if name != "rate"} == {
        "name": "basic", "algorithm": "sliding_window", "burst": None, "scope": "customer", "mode": "enforce",
        "per": None, "of": None, "reserve": None, "reserve_max": None,
        "cost_header": None, "sync": "bounded", "routes": (), "scopes": (),
    }  # fmt: skip
    assert vars(settings.tiers["none"]) == {
        "limits": (), "concurrency": None, "quotas": (), "burst_credits": None, "caps": None, "priority": 0,
        "message": None, "analytics": None,
    }  # fmt: skip
    assert vars(settings.customers["007"]) == {
        "tier": "basic", "limits": (), "concurrency": None, "quotas": None, "burst_credits": None, "caps": None,
        "priority": None, "message": None, "revoked": (), "paused": None, "regions": None, "networks": None,
        "flags": (), "moved": None,
    }  # fmt: skip
    key = settings.keys[0]
    assert (key.sha256, key.customer, key.scopes, key.expires) == ("ab" * 32, "007", {"read", "a:b"}, 1798761600.0)
    assert (str(settings.tables.dir), settings.tables.customers, settings.tables.addresses) == ("/dev/shm/edge", 10, 20)
    assert tuple(vars(settings.limits).values()) == (
        65536, 50, 10 << 20, 1 << 30, 56 << 20, 128 << 20, 0.5, 60.0, 240, 3600.0, 1000, 10, None, 64, 1,
    )  # fmt: skip
    assert settings.security_headers is True
    assert (settings.drain, settings.legacy_headers, settings.stamp_secret) == (0.0, True, "s3cret")
    assert "s3cret" not in repr(settings)


def test_meters_load_their_measure_and_header(loaded):
    settings = loaded(
        "meters: {in: {count: bytes_in}, out: {count: bytes_out, when: admitted}, dear: {count: cost}, "
        "head: {count: response_header, header: X-Tokens, when: success}, "
        "tail: {count: response_trailer, header: X-Tokens, pass: yes}}\n"
    )
    assert {name: tuple(vars(meter).values())[:4] for name, meter in settings.meters.items()} == {
        "in": ("bytes_in", "answered", None, False),
        "out": ("bytes_out", "admitted", None, False),
        "dear": ("cost", "answered", None, False),
        "head": ("response_header", "success", "X-Tokens", False),
        "tail": ("response_trailer", "answered", "X-Tokens", True),
    }


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
        ("https://api.internal", "api.internal", 443, "api.internal:443"),
    ],
)
def test_an_endpoint_has_a_scheme_a_host_and_a_port(url, host, port, authority):
    endpoint = Endpoint(url=url)
    assert (endpoint.host, endpoint.port, endpoint.authority) == (host, port, authority)
    assert endpoint.scheme == url.partition(":")[0]


def upstream(loaded, fields):
    """The upstream `more` that has these fields."""
    text = (
        f"upstreams: {{api: {{endpoints: ['http://a']}}, more: {{{fields}}}}}\nroutes: [{{path: /, upstream: api}}]\n"
    )
    return loaded(text, alone=True).upstreams["more"]


def test_how_an_upstream_is_watched_and_requested(loaded):
    more = upstream(
        loaded,
        "endpoints: [{url: 'https://b:9443', weight: 3, region: us-east}], health: {path: '/healthz?deep', every: 2s}, "
        "retry: {attempts: 3, budget: 12.5%}, eject: {errors: 1, for: 2min}, breaker: {pending: 1000}, "
        "tls: {ca: ca.pem, cert: edge.pem, key: edge.key, server_name: API.internal}",
    )
    assert vars(more.endpoints[0]) == {"url": "https://b:9443", "path": None, "weight": 3, "region": "us-east"}
    assert vars(more.health) == {"path": "/healthz?deep", "grpc": None, "every": 2.0}
    assert vars(more.retry) == {"attempts": 3, "budget": 0.125}
    assert vars(more.eject) == {"errors": 1, "for_": 120.0}
    assert vars(more.breaker) == {"pending": 1000}
    assert vars(more.tls) == {
        "ca": Path("ca.pem"), "cert": Path("edge.pem"), "key": Path("edge.key"), "server_name": "api.internal",
        "verify": True,
    }  # fmt: skip


def test_ejecting_can_be_switched_off(loaded):
    assert upstream(loaded, "endpoints: ['http://b'], eject: off").eject is None


def test_a_listener_may_have_tls(loaded):
    listener, plain = loaded(
        "listen: [{address: '[::]:443', tls: {cert: a.pem, key: a.key, client_ca: ca.pem}}, '[::]:80']\n"
    ).listen
    assert (listener.address, listener.tls.client_ca) == (Address("::", 443), Path("ca.pem"))
    assert listener.tls.pairs == (Certificate(cert=Path("a.pem"), key=Path("a.key")),)
    assert plain.tls is None


def test_the_certificate_of_the_short_form_is_the_first(loaded):
    several = "certificates: [{cert: b.pem, key: b.key}, {cert: c.pem, key: c.key}]"
    for short, names in (("", "bc"), ("cert: a.pem, key: a.key, ", "abc")):
        tls = loaded(f"listen: {{address: 'a:443', tls: {{{short}{several}}}}}\n").listen[0].tls
        assert [(str(pair.cert), str(pair.key)) for pair in tls.pairs] == [(f"{x}.pem", f"{x}.key") for x in names]


@pytest.mark.parametrize(
    ("written", "file", "sample"),
    [
        ("access.log", "access.log", 1.0),
        ("{file: /var/log/edge.log}", "/var/log/edge.log", 1.0),
        ("{file: a, sample: 1%}", "a", 0.01),
    ],
)
def test_access_log_setting_gives_file_and_sample(loaded, written, file, sample):
    log = loaded(f"access_log: {written}\n").access_log
    assert (log.file, log.sample) == (Path(file), sample)


def test_requests_are_not_logged_where_it_says_off(loaded):
    assert loaded("access_log: off\n").access_log is None


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
    plans = [compute_allowance(settings.tiers["t"], settings.customers[customer]) for customer in "abc"]
    assert [[limit.count for limit in plan.limits] for plan in plans] == [[1], [2], []]


@pytest.mark.parametrize(
    ("rate", "fields", "depth"),
    [
        (Rate(60, 60.0), {}, 0),
        (Rate(60, 60.0), {"algorithm": "token_bucket"}, 60),
        (Rate(60, 60.0), {"algorithm": "token_bucket", "burst": 5}, 5),
        (Rate(1, 60.0), {"algorithm": "token_bucket", "burst": 500}, 500),
        (Rate(60, 60.0), {"algorithm": "hybrid"}, 6),
        (Rate(59, 60.0), {"algorithm": "hybrid"}, 5),
        (Rate(9, 60.0), {"algorithm": "hybrid"}, 1),
        (Rate(60, 60.0), {"algorithm": "hybrid", "burst": 60}, 60),
    ],
)
def test_a_limit_says_how_deep_its_bucket_is(rate, fields, depth):
    assert Limit(name="x", rate=rate, **fields).depth == depth


def test_limit_loads_algorithm_scope_mode_and_cost_header(loaded):
    (limit,) = loaded(
        "tiers: {t: {limits: [{rate: 5/s, algorithm: hybrid, burst: 9, scope: key, mode: shadow, "
        "cost_header: X-Cost}]}}\n"
    ).tiers["t"].limits  # fmt: skip
    assert (limit.algorithm, limit.depth, limit.scope, limit.mode) == ("hybrid", 9, "key", "shadow")
    assert limit.cost_header == "X-Cost"


@pytest.mark.parametrize("scope", ["customer", "key", "ip", "route", "customer_route"])
def test_limits_of_tiers_and_of_routes_have_every_scope(loaded, scope):
    limits = f"limits: [{{rate: 5/s, scope: {scope}}}]"
    settings = loaded(
        f"tiers: {{t: {{{limits}}}}}\nupstreams: {{u: {{endpoints: ['http://a']}}}}\n"
        f"routes: [{{path: /, upstream: u, {limits}}}]\n",
        alone=True,
    )
    assert settings.tiers["t"].limits[0].scope == settings.routes[0].limits[0].scope == scope


def test_a_tier_says_more_than_limits(loaded):
    tier = loaded(
        """\
tiers:
  t:
    concurrency: 2
    quotas: [{meter: requests, per: day, included: 0}, {meter: requests, per: month, included: 5, cap: hard,
      timezone: America/Argentina/Buenos_Aires}]
    burst_credits: {earn: 10/s, max: 600}
    priority: 1
    message: >
      Write to us
      for more
"""
    ).tiers["t"]
    assert (tier.concurrency.max, tier.priority, tier.message) == (2, 1, "Write to us for more")
    assert tier.burst_credits == BurstCredits(earn=Rate(10, 1.0), max=600)
    assert tier.quotas == (
        Quota(meter="requests", per="day", included=0, cap="soft", timezone="UTC"),
        Quota(meter="requests", per="month", included=5, cap="hard", timezone="America/Argentina/Buenos_Aires"),
    )
    assert [quota.name for quota in tier.quotas] == ["requests-day", "requests-month"]


def test_a_customer_may_be_paused_or_served_in_some_regions_only(loaded):
    customers = loaded(
        """\
tiers: {t: {}}
customers:
  a: {tier: t, paused: {why: unpaid, status: 402}, regions: {allow: [eu-west]}}
  b: {tier: t, paused: {why: unpaid}, regions: {prefer: eu-west}}
  c: {tier: t, regions: {}}
"""
    ).customers
    assert [customers[name].paused for name in "abc"] == [
        Paused(why="unpaid", status=402),
        Paused(why="unpaid", status=403),
        None,
    ]
    assert [customers[name].regions for name in "abc"] == [
        Regions(allow=("eu-west",), prefer=None),
        Regions(allow=None, prefer="eu-west"),
        Regions(allow=None, prefer=None),
    ]


@pytest.mark.parametrize(
    ("reported", "exposed"),
    [
        ("collector: 'http://10.0.0.5:9100', token: t", True),
        ("collector: 'http://10.0.0.5:9100', token: ''", False),
        ("collector: 'https://10.0.0.5:9100', token: t", False),
        ("collector: 'http://localhost:9100', token: t", False),
    ],
)
def test_collector_token_counts_as_exposed_without_tls(loaded, reported, exposed):
    assert loaded(f"usage: {{{reported}}}\n").usage.is_exposed is exposed


def test_a_hub_is_a_url_or_a_mapping_with_it(loaded):
    assert loaded("hub: redis://H.example\n").hub == Hub(url="redis://h.example:6379/0")
    assert loaded("hub: {}\n").hub == loaded("hub: memory://\n").hub == Hub()
    hub = loaded("hub: {url: 'rediss://me:hush@h', sync: 100ms, on_loss: full, tls: {ca: a, verify: yes}}\n").hub
    assert (hub.url, hub.sync, hub.on_loss, str(hub.tls.ca)) == ("rediss://me:hush@h:6379/0", 0.1, "full", "a")
    assert hub.name == "rediss://me@h:6379/0"
    assert "hush" not in repr(hub)


@pytest.mark.parametrize(
    ("url", "shared", "exposed"),
    [
        ("memory://", False, False),
        ("redis://10.0.0.5", True, False),
        ("redis://me@10.0.0.5", True, False),
        ("redis://me:@10.0.0.5", True, False),
        ("redis://:p@10.0.0.5", True, True),
        ("redis://me:p@redis.example", True, True),
        ("redis://me:p@localhost", True, False),
        ("redis://me:p@[::1]", True, False),
        ("rediss://me:p@10.0.0.5", True, False),
        ("redis+cluster://10.0.0.5,10.0.0.6", True, False),
        ("redis+cluster://me:p@localhost,10.0.0.6", True, True),
        ("redis+cluster://me:p@localhost:1,[::1]:2", True, False),
        ("rediss+cluster://me:p@10.0.0.5", True, False),
    ],
)
def test_hub_url_tells_sharing_and_exposure_without_tls(url, shared, exposed):
    hub = Hub(url=url)
    assert (hub.is_shared, hub.is_exposed) == (shared, exposed)


def test_limits_say_how_closely_hosts_keep_them(loaded):
    settings = loaded(
        "tiers: {t: {limits: [{rate: 1/s}, {rate: 9/min, sync: eventual}]}}\n"
        "customers: {c: {tier: t, limits: [{rate: 1/s, sync: strict}]}}\n"
        "upstreams: {u: {endpoints: ['http://a']}}\n"
        "routes: [{path: /, upstream: u, limits: [{rate: 1/s, sync: bounded}, {rate: 9/min, sync: strict}]}]\n",
        alone=True,
    )
    held = (settings.tiers["t"], settings.customers["c"], settings.routes[0])
    assert [[limit.sync for limit in part.limits] for part in held] == [
        ["bounded", "eventual"],
        ["strict"],
        ["bounded", "strict"],
    ]


@pytest.mark.parametrize(
    ("url", "host", "sent"),
    [
        ("http://api.internal:9001", "pass", None),
        ("http://api.internal:9001", "upstream", "api.internal:9001"),
        ("http://api.internal", "upstream", "api.internal"),
        ("https://[::1]:443", "upstream", "[::1]"),
        ("https://api.internal:80", "upstream", "api.internal:80"),
        ("http://api.internal", "shop.internal:81", "shop.internal:81"),
    ],
)
def test_the_host_that_an_endpoint_gets(url, host, sent):
    assert Endpoint(url=url).find_sent_host(host) == sent


def test_route_loads_its_authentication_methods(loaded):
    routes = "".join(
        f"  - {{path: /{n}, upstream: a, auth: {auth}}}\n"
        for n, auth in enumerate(("key", "jwt", "[key, jwt]", "[jwt]", "optional", "[certificate, key]"))
    )
    settings = loaded("upstreams: {a: {endpoints: ['http://a']}}\nroutes:\n" + routes, alone=True)
    taken = ["required", "jwt", "key or jwt", "jwt", "optional", "key or certificate"]
    assert [route.auth for route in settings.routes] == taken


def test_listener_speaks_http2_unless_off_or_for_authorization(loaded):
    others = "{address: 127.0.0.1:2, http2: false}, {address: 127.0.0.1:3, authorize: path}"
    listen = f"trusted_proxies: [127.0.0.1]\nlisten: [127.0.0.1:1, {others}]\n"
    assert [each.speaks_http2 for each in loaded(listen).listen] == [True, False, False]
