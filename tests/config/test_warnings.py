"""The warnings of `check`."""

import re

import pytest

from edgeproxy.config.collector import load as collector_load
from edgeproxy.config.collector.warnings import list_collector_warnings
from edgeproxy.config.edge import load as edge_load
from edgeproxy.config.edge.warnings import COSTS_MAX, list_edge_warnings
from edgeproxy.config.warnings import DEMONSTRATION
from loadtest.testbed.authority import Authority
from loadtest.testbed.process import ROOT
from tests.config.conftest import LEAST

DEMO = "913a34558ad21bcf70e94d5c791c254d025109fb9bae4d1d1c9d2e2444b76ad1"
KEY = "ed25519:11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
UPSTREAM = "upstreams: {api: {endpoints: [http://127.0.0.1:1]}}\n"


READS = "routes: [{path: /*, upstream: api, response_usage: %s}]\n" + UPSTREAM


ESTIMATED = "meters: {t: {count: output_tokens, missing: text/4%s}}\n"
TOKENS = "meters: {t: {count: output_tokens}}\n"
UNITS = "limits: [{rate: 9/min, of: t}]"
SPLIT = ", dimensions: {estimated: 2}"
QUOTA = "quotas: [{meter: t, per: day, included: 9}]"
KEYS = f"keys: [{{sha256: {'a' * 64}, customer: c, {UNITS}}}]"


def warned(tmp_path, text, rest=LEAST, read=edge_load.load_edge, of=list_edge_warnings):
    """The fields that a file with this text is warned of, and the whole of it."""
    given = {line.partition(":")[0] for line in text.splitlines()}
    lines = [line for line in rest.splitlines() if line.partition(":")[0] not in given]
    path = tmp_path / "file.yaml"
    path.write_text("\n".join([text, *lines]))
    reported = list(of(read(path, {})))
    return [line.partition(": ")[0] for line in reported], "\n".join(reported)


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("limits: {connections_per_ip: 100}", "limits.connections_per_ip"),
        ("limits: {connections_per_ip: 100}\ntrusted_proxies: [10.0.0.1]", None),
        ("limits: {connections_per_ip: none}", None),
        ("trusted_proxies: [10.0.0.1, 0.0.0.0/0]", "trusted_proxies.1"),
        ("stamp_secret: short", "stamp_secret"),
        ("rules: [{name: a, field: Upgrade}]", "rules.0.field"),
        ("rules: [{name: a, field: Cookie}]", None),
        ("meters: {t: {count: output_tokens}}", "meters.t"),
        (TOKENS + READS % "openai, upgrade: [websocket, mqtt]", "routes.0.upgrade"),
        (f"meters: {{t: {{count: output_tokens}}}}\n{READS % 'json'}", "meters.t"),
        ("meters: {m: {count: grpc_messages_in}, r: {count: requests}}", "meters.m"),
        (f"meters: {{m: {{count: grpc_messages}}}}\n{UPSTREAM.replace('1]}', '1], protocol: h2c}')}", None),
        (f"meters: {{t: {{count: output_tokens}}, r: {{count: requests}}}}\n{READS % 'gemini'}", None),
        (f"meters: {{t: {{count: response_json, json: a}}}}\n{READS % 'json'}", None),
        (f"{TOKENS}tiers: {{a: {{{UNITS}}}}}\n{READS % 'gemini'}", None),
        (f"{ESTIMATED % ''}{READS % 'gemini'}", None),
        (f"{ESTIMATED % ''}tiers: {{a: {{{UNITS}}}}}\n{READS % 'gemini'}", "meters.t"),
        (f"{ESTIMATED % SPLIT}tiers: {{a: {{{UNITS}}}}}\n{READS % 'gemini'}", None),
        (f"{ESTIMATED % ''}tiers: {{a: {{{QUOTA}}}}}\n{READS % 'gemini'}", "meters.t"),
        (f"{ESTIMATED % SPLIT}tiers: {{a: {{{QUOTA}}}}}\n{READS % 'gemini'}", None),
        (f"{ESTIMATED % ''}tiers: {{a: {{}}}}\ncustomers: {{c: {{tier: a, {QUOTA}}}}}\n{READS % 'gemini'}", "meters.t"),
        (f"{TOKENS}tiers: {{a: {{{UNITS}}}}}", "meters.t tiers.a.limits.0.of"),
        (f"{TOKENS}tiers: {{a: {{}}}}\ncustomers: {{c: {{tier: a, {UNITS}}}}}", "meters.t customers.c.limits.0.of"),
        (f"{TOKENS}tiers: {{a: {{}}}}\ncustomers: {{c: {{tier: a}}}}\n{KEYS}", "meters.t keys.0.limits.0.of"),
        (f"{TOKENS}routes: [{{path: /*, upstream: api, {UNITS}}}]\n{UPSTREAM}", "meters.t routes.0.limits.0.of"),
        (
            f"{TOKENS}routes: [{{path: /a, upstream: api, response_usage: openai}}, "
            f"{{path: /b, upstream: api, {UNITS}}}]"
            f"\n{UPSTREAM}",
            "routes.1.limits.0.of",
        ),
        (
            "routes: [{path: /*, upstream: a, auth: certificate}]\nupstreams: {a: {endpoints: ['http://a']}}",
            "routes.0.auth",
        ),
        (f"stamp_secret: {'x' * 32}", None),
        ("hub: redis://10.0.0.5", "hub hub"),
        ("hub: rediss://10.0.0.5", "hub"),
        ("hub: rediss://:hush@10.0.0.5", None),
        ("hub: {url: 'rediss://:hush@10.0.0.5', tls: {verify: false}}", "hub.tls.verify"),
        ("hub: redis://127.0.0.1", None),
        ("hub: redis://127.0.0.1\ndirectory: {from: hub}", "directory.trust"),
        (f"hub: redis://127.0.0.1\ndirectory: {{from: hub, trust: '{KEY}'}}", "directory.max_age"),
        (f"hub: redis://127.0.0.1\ndirectory: {{from: hub, trust: '{KEY}', max_age: none}}", "directory.max_age"),
        (f"hub: redis://127.0.0.1\ndirectory: {{from: hub, trust: '{KEY}', max_age: 24h}}", None),
        (f"usage: {{collector: 'http://127.0.0.1:1'}}\ndirectory: {{from: collector, trust: '{KEY}'}}", None),
        ("usage: {collector: 'https://10.0.0.5', tls: {verify: false}}", "usage.tls.verify"),
        ("tracing: {endpoint: 'https://10.0.0.5', tls: {verify: false}}", "tracing.tls.verify"),
        ("tracing: {endpoint: 'http://10.0.0.5'}", "tracing.endpoint"),
        ("tracing: {endpoint: 'http://127.0.0.1:4318'}", None),
        (
            "upstreams: {api: {endpoints: [https://10.0.0.5], tls: {verify: false}}}",
            "upstreams.api.tls.verify",
        ),
        ("upstreams: {api: {endpoints: ['https://api.example.com'], host: pass}}", "upstreams.api.host"),
        ("upstreams: {api: {endpoints: ['https://api.example.com']}}", None),
        ("upstreams: {api: {endpoints: ['https://10.0.0.5'], host: pass}}", None),
        ("routes: [{path: /a, upstream: api, headers: {CF-IPCountry: DE}}]", "routes.0.headers"),
        ("strip: [X-A]\nroutes: [{path: /a, upstream: api, headers: {x-a: b}}]", "routes.0.headers"),
        (
            "routes: [{path: /a, upstream: api, headers: {X-A: '*'}}, "
            "{name: b, path: /a, upstream: api, headers: {x-a: b}}]",
            "routes.1",
        ),
        (
            "routes: [{path: /a, upstream: api, headers: {x-a: b}}, "
            "{name: b, path: /a, upstream: api, headers: {X-A: '*'}}]",
            None,
        ),
        (f"tiers: {{t: {{}}}}\ncustomers: {{c: {{tier: t}}}}\nkeys: [{{sha256: {DEMO}, customer: c}}]", "keys.0"),
        (f"tiers: {{t: {{}}}}\ncustomers: {{c: {{tier: t}}}}\nkeys: [{{sha256: {'a' * 64}, customer: c}}]", None),
    ],
)
def test_suspicious_edge_configuration_gets_a_warning(tmp_path, text, field):
    assert " ".join(warned(tmp_path, text)[0]) == (field or "")


ROUTES = [
    # An upstream with another route that requires less.
    (
        "{path: /admin/*, upstream: api, scopes: [a]}, {path: /*, upstream: api}",
        "/admin;x and //admin and /ADMIN are not /admin/*",
    ),
    (
        "{path: /a/b/*, upstream: api}, {path: /a/*, upstream: api, auth: none}",
        "/a/b;x and /a//b and /a/B are not /a/b/*",
    ),
    ("{path: /42/*, upstream: api}, {path: /*, upstream: api, auth: optional}", "/42;x and //42 are not /42/*"),
    (
        "{path: /all/*/secret, upstream: api}, {path: /all/*, upstream: api, auth: none}",
        "/all/*/secret;x and /all/*//secret and /all/*/secret/ and /all/*/SECRET are not /all/*/secret",
    ),
    ("{path: /42, upstream: api}, {path: /42/*, upstream: api, auth: none}", "/42/ are not /42, and go by /42/*"),
    (
        "{path: /4, upstream: api}, {path: /4/*, upstream: api}, {path: /*, upstream: api, auth: none}",
        "/4;x and //4 are not /4,",
    ),
    ("{path: /admin/*, upstream: api}, {path: /*, upstream: api}", None),
    ("{path: /admin/*, upstream: api}, {path: /*, upstream: other, auth: none}", None),
    ("{path: /admin/*, upstream: api, host: a.b}, {path: /*, upstream: api, host: c.d, auth: none}", None),
    ("{path: /*, upstream: api, host: a.b}, {path: /*, upstream: api, auth: none}", None),
    ("{path: /admin, upstream: api}, {path: /x, upstream: api, auth: none}", None),
]

ADMIN = "{name: a, path: /q/*, upstream: api, query: {mode: admin}}"
CHOICES = [
    (
        f"{{path: /q/*, upstream: api, auth: none}}, {ADMIN}",
        "routes.1",
        "between this route and /q/*, which has other auth:",
    ),
    (f"{ADMIN}, {{path: /*, upstream: api, scopes: [s]}}", "routes.0", "/*, which has other scopes:"),
    (
        f"{ADMIN}, {{path: /*/b, upstream: api, networks: {{deny: [10.0.0.1]}}}}",
        "routes.0",
        "/*/b, which has other networks:",
    ),
    (
        "{path: /v, upstream: api}, {name: p, path: /v, headers: {X-P: '*'}, upstream: api, auth: none}",
        "routes.1",
        "auth",
    ),
    (
        f"{ADMIN}, {{name: b, path: /q/*, upstream: api, headers: {{X-B: c}}, auth: none}}",
        "routes.1",
        "and a, which has",
    ),
    (f"{{path: /q/*, upstream: other, auth: none}}, {ADMIN}", "", ""),
    (f"{{path: /q/*, upstream: api}}, {ADMIN}", "", ""),
    (f"{{path: /q/b, upstream: api, auth: none}}, {ADMIN}", "", ""),
    (f"{{path: /r/*, upstream: api, auth: none}}, {ADMIN}", "", ""),
    ("{path: /q, upstream: api}, {path: /q, upstream: api, headers: {X-B: c}}", "routes.1", "the label /q: write name"),
]


STAY = "{{endpoints: [http://127.0.0.1:{0}], balance: {{cookie: stay, secret: 0123456789abcdef}}}}".format
OVERWRITES = "upstreams.b.balance.cookie"


@pytest.mark.parametrize(
    ("other", "hosts", "field"),
    [
        (2, ("", ""), OVERWRITES),
        (1, ("", ""), ""),
        (2, (", host: a.example", ", host: b.example"), ""),
        (2, ("", ", host: b.example"), OVERWRITES),
        (2, (", host: a.example", ""), OVERWRITES),
    ],
)
def test_upstreams_with_one_affinity_cookie_are_warned_about(tmp_path, other, hosts, field):
    routes = f"{{path: /a/*, upstream: a{hosts[0]}}}, {{path: /b/*, upstream: b{hosts[1]}}}"
    text = f"upstreams: {{a: {STAY(1)}, b: {STAY(other)}}}\nroutes: [{routes}]"
    assert " ".join(warned(tmp_path, text)[0]) == field


@pytest.mark.parametrize(("routes", "field", "reported"), CHOICES)
def test_conditions_that_choose_between_unequal_routes(tmp_path, routes, field, reported):
    upstreams = "upstreams: {api: {endpoints: [http://127.0.0.1:1]}, other: {endpoints: [http://127.0.0.1:2]}}"
    fields, text = warned(tmp_path, f"{upstreams}\nroutes: [{routes}]")
    assert " ".join(field for field in fields if not field.endswith(".path")) == field
    assert reported in text


@pytest.mark.parametrize(("routes", "reported"), ROUTES)
def test_warning_names_paths_that_bypass_a_guarded_route(tmp_path, routes, reported):
    upstreams = "upstreams: {api: {endpoints: [http://127.0.0.1:1]}, other: {endpoints: [http://127.0.0.1:2]}}"
    text = f"{upstreams}\nroutes: [{routes}]"
    assert (reported or "") in warned(tmp_path, text)[1]
    assert bool(warned(tmp_path, text)[0]) == bool(reported)
    assert ";x" not in warned(tmp_path, f'{text}\npaths: {{reject: [";"]}}')[1]


def test_each_limit_that_a_cost_can_never_pass_is_named(tmp_path):
    text = """
meters: {requests: {count: requests}, work: {count: cost}}
tiers:
  small: {limits: [{rate: 5/min}, {rate: 100/min, algorithm: token_bucket, burst: 4}, {rate: 3/s, mode: shadow}]}
  mixed: {limits: [{rate: 50/min, algorithm: hybrid}, {rate: 2/h, cost_header: X-Cost}]}
  saved: {limits: [{rate: 5/min}], burst_credits: {earn: 1/s, max: 60}}
  quota: {quotas: [{meter: work, per: day, included: 8, cap: hard}, {meter: work, per: month, included: 8}]}
  anonymous: {limits: [{rate: 7/min}]}
customers: {acme: {tier: saved, limits: [{rate: 6/min}], burst_credits: off}, plain: {tier: small}}
upstreams: {api: {endpoints: [http://127.0.0.1:1]}}
routes:
  - {path: /dear, upstream: api, cost: 10, limits: [{rate: 9/min}]}
  - {path: /open, upstream: api, cost: 10, auth: none}
  - {path: /cheap, upstream: api}
""".strip()
    fields, reported = warned(tmp_path, text)
    assert set(fields) == {"routes.0.cost", "routes.1.cost"}
    assert re.findall(r"(routes\.\d)\.cost: 10 is more than (?:the quota )?(\S+) of (\S+)", reported) == [
        ("routes.0", "dear", "routes.0"),
        ("routes.0", "small", "tiers.small"),
        ("routes.0", "small-2", "tiers.small"),
        ("routes.0", "mixed", "tiers.mixed"),
        ("routes.0", "work-day", "tiers.quota"),
        ("routes.0", "saved", "customers.acme"),
        ("routes.1", "anonymous", "tiers.anonymous"),
    ]


def test_the_costs_of_very_many_plans_are_counted(tmp_path):
    tiers = "".join(f"\n  t{number}: {{limits: [{{rate: 1/s}}]}}" for number in range(COSTS_MAX + 5))
    fields, reported = warned(tmp_path, f"tiers:{tiers}\nroutes: [{{path: /*, upstream: api, cost: 2}}]\n{UPSTREAM}")
    assert len(fields) == COSTS_MAX + 1
    assert "5 more costs" in reported


SLACK = "{slack: https://hooks.test/x}"
ALERTMANAGER = "alerts: {{channels: {{a: {{alertmanager: '{}', private: yes}}}}, routes: {{info: [a]}}}}"
COLLECTOR = "tokens: [{sha256: " + "a" * 64 + ", role: read}]\ndatabase: sqlite:///x.db"


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("database: sqlite:///x.db", None),
        ("database: postgresql://u:p@127.0.0.1/l", None),
        ("database: postgresql://u:p@10.0.0.5:5432/l", "database"),
        ("database: postgresql://u:p@10.0.0.5/l?sslmode=require", "database"),
        ("database: postgresql://u:p@10.0.0.5/l?sslmode=verify-full", None),
        (
            "tokens: [{sha256: f281af89288ec6166d49fa2930ce4be9d86805193ab762415ce1ac8429ed2442, role: edge}]",
            "tokens.0",
        ),
        ("listen: {address: '0.0.0.0:9100', behind_tls: true}\npages: {url: https://console.example.com}", None),
        ("listen: {address: '10.0.0.5:9100', behind_tls: true}\npages: {}", "pages"),
        ("listen: {address: '127.0.0.1:1', serve: [api, edges, customers, metrics]}", None),
        ("listen: {address: '127.0.0.1:1', serve: [api, edges, metrics]}", "listen"),
        ("listen: {address: '127.0.0.1:1', serve: [webhooks, metrics]}", "listen listen listen"),
        ("listen: [{address: '127.0.0.1:1', serve: [portal]}, '127.0.0.1:2']", "listen.0.serve"),
        (
            "listen: {address: '127.0.0.1:1', serve: [api, edges, customers, metrics, portal]}\npages: {}",
            "listen listen",
        ),
        ("trusted_proxies: [0.0.0.0/0, '::/0', 0.0.0.0/1]", "trusted_proxies.0 trusted_proxies.1 trusted_proxies.2"),
        ("trusted_proxies: [10.0.0.0/8, 'fc00::/7', 198.51.100.0/24]", None),
        ("listen: 127.0.0.1:9100\npages: {}", None),
        (f"alerts: {{channels: {{a: {SLACK}, b: {SLACK}}}, routes: {{page: [a]}}}}", "alerts.channels.b"),
        ("privacy: {erasures: erasures.jsonl}", "privacy.erasures"),
        ("privacy: {erasures: ../elsewhere/erasures.jsonl}", None),
        (ALERTMANAGER.format("http://127.0.0.1:9093/api/v2/alerts"), None),
        (ALERTMANAGER.format("https://am.internal:9093/api/v2/alerts"), None),
        (ALERTMANAGER.format("http://am.internal:9093/api/v2/alerts"), "alerts.channels.a.alertmanager"),
    ],
)
def test_collector_configuration_gets_its_warnings(tmp_path, text, field):
    fields, reported = warned(tmp_path, text, COLLECTOR, collector_load.load_collector, list_collector_warnings)
    assert " ".join(fields) == (field or "")
    assert "u:p" not in reported


def test_customers_of_files_are_beyond_the_reach_of_plans(tmp_path):
    (tmp_path / "plans.yaml").write_text("plans: {basic@1: {fee: '9', tier: t}}\n")
    keys = ", ".join(f"{{sha256: {digest}, customer: acme}}" for digest in ("b" * 64, DEMO))
    text = f"tiers: {{t: {{}}}}\ncustomers: {{acme: {{tier: t}}}}\nkeys: [{keys}]"
    for sold, expected in (("", ["keys.1"]), (f"\nbilling: {{plans: {tmp_path}/plans.yaml}}", ["keys.1", "customers"])):
        fields, reported = warned(
            tmp_path, text + sold, COLLECTOR, collector_load.load_collector, list_collector_warnings
        )
        assert fields == expected
    assert "acme: an edge that has them in files too" in reported


@pytest.mark.parametrize(
    ("meter", "expected"),
    [
        ("count: output_tokens, missing: text/4", ["meters.t"]),
        ("count: output_tokens, missing: text/4, dimensions: {estimated: 2}", []),
        ("count: output_tokens", []),
    ],
)
def test_warning_names_plans_that_charge_estimates(tmp_path, meter, expected):
    (tmp_path / "plans.yaml").write_text("plans: {basic@1: {fee: '9', tier: t, meters: {t: {price: '1/1M'}}}}\n")
    text = f"meters: {{t: {{{meter}}}}}\ntiers: {{t: {{}}}}\nbilling: {{plans: {tmp_path}/plans.yaml}}"
    fields, reported = warned(tmp_path, text, COLLECTOR, collector_load.load_collector, list_collector_warnings)
    assert fields == expected
    assert not expected or "basic@1 charges estimates" in reported


@pytest.mark.parametrize(
    ("meter", "fields"),
    [
        ("total_tokens, dimensions: {model: {values: 5, named: [small]}}", ["meters.tokens.dimensions.model"]),
        ("total_tokens, dimensions: {model: {values: 5, named: [small, large]}}", []),
        ("events, dimensions: {model: {values: 5, named: []}}", []),
    ],
)
def test_priced_values_that_an_edge_may_fold_are_named(tmp_path, meter, fields):
    terms = "meters: {tokens: {price: '1', by: {dimension: model, prices: {large: '2', small: '3'}}}}"
    (tmp_path / "plans.yaml").write_text(f"plans: {{basic@1: {{fee: '9', tier: t, {terms}}}}}\n")
    meters = f"meters: {{tokens: {{count: {meter}}}}}"
    text = f"tiers: {{t: {{}}}}\n{meters}\nbilling: {{plans: {tmp_path}/plans.yaml}}"
    warnings = warned(tmp_path, text, COLLECTOR, collector_load.load_collector, list_collector_warnings)
    assert warnings[0] == fields
    assert not fields or "plans price large, which an edge" in warnings[1]


def test_warning_names_listeners_without_client_certificates(tmp_path):
    authority = Authority(tmp_path)
    pair = authority.issue("collector.test")
    tls = f"{{cert: {pair.cert}, key: {pair.key}, client_ca: {authority.file}}}"
    text = f"listen: [0.0.0.0:1, {{address: '127.0.0.1:2', tls: off}}]\ntls: {tls}"
    fields, reported = warned(tmp_path, text, COLLECTOR, collector_load.load_collector, list_collector_warnings)
    assert (fields, "127.0.0.1:2 without the certificate" in reported) == (["listen"], True)
    text = text.replace("tls: off", "tls: off, serve: [api]")
    assert warned(tmp_path, text, COLLECTOR, collector_load.load_collector, list_collector_warnings)[0] == []


def test_every_key_and_token_that_everybody_can_read_is_known():
    written = "".join((ROOT / "config" / name).read_text() for name in ("demo.yaml", "collector.yaml", "edge.yaml"))
    assert set(re.findall(r'sha256: "?([0-9a-f]{64})', written)) <= DEMONSTRATION
