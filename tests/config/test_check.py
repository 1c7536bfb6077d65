"""All that can be wrong with a configuration, in the words of `edgeproxy check`."""

import pytest

from edgeproxy.config.addresses import AN_ORIGIN
from edgeproxy.config.edge.readers import A_KEY_FIELD, A_LOG, A_PARAMETER, A_STRIPPED, AN_EXCEPTION
from edgeproxy.config.edge.routes import Route
from edgeproxy.config.parsers import A_LISTENER, A_NAME, A_SECRET
from edgeproxy.config.units import A_SHARE, A_TIME
from tests.config.conftest import LEAST


@pytest.fixture
def reads_files():
    return False


def test_every_problem_is_reported_at_once(problems):
    assert problems(
        """\
regin: eu-west
listen: 0.0.0.0
cache_key: secret
tiers:
  basic:
    limits:
      - {rate: 60/minute}
    concurency: 2
customers:
  acme: {tier: bsic}
keys:
  - {sha256: abc, customer: amce}
upstreams:
  api:
    endpoints: [127.0.0.1:9001]
routes:
  - {path: v1, upstream: apo}
  - upstream: api
drain:
"""
    ) == [
        "edge.yaml:1: regin: unknown field, did you mean region?",
        "edge.yaml:2: listen: '0.0.0.0' is not an address with a port, HOST:PORT such as 127.0.0.1:8080 or [::1]:8080",
        "edge.yaml:3: cache_key: is no key, 32 bytes in Base64 or hex, best from the environment: ${NAME}, "
        "or {file: FILE}, or {command: [PROGRAM, …]}",
        "edge.yaml:7: tiers.basic.limits.0.rate: 'minute' is not a unit, write one of ms, s, min, h, day, d",
        "edge.yaml:8: tiers.basic.concurency: unknown field, did you mean concurrency?",
        "edge.yaml:10: customers.acme.tier: there is no tier bsic, did you mean basic?",
        "edge.yaml:12: keys.0.customer: there is no customer amce, did you mean acme?",
        "edge.yaml:12: keys.0.sha256: has 3 characters that are not a SHA-256, "
        "64 hex digits, the SHA-256 of a key: `edgeproxy key add` prints it",
        "edge.yaml:15: upstreams.api.endpoints.0: '127.0.0.1:9001' is not an http or https URL, "
        "http://HOST:PORT such as http://10.0.0.5:9001, or https://HOST:PORT",
        "edge.yaml:17: routes.0.upstream: there is no upstream apo, did you mean api?",
        "edge.yaml:17: routes.0.path: 'v1' does not begin with /, a path such as /v1/orders, or /v1/* for all below it",
        "edge.yaml:18: routes.1.path: is missing, write path: /v1/*",
        "edge.yaml:19: drain: has no value, write one, or leave it out",
    ]


@pytest.mark.parametrize(
    ("text", "reported"),
    [
        (
            "upstream: {api: {endpoints: [http://a]}}\nroutes: [{path: /*, upstream: api}]\n",
            ["1: upstream: unknown field, did you mean upstreams?"],
        ),
        (
            "upstrems: {api: {endpoint: [http://a]}}\nroute: [{path: x, upstream: apo}]\nrouts: []\n",
            [
                "1: upstrems: unknown field, did you mean upstreams?",
                "1: upstrems.api.endpoint: unknown field, did you mean endpoints?",
                "2: route: unknown field, did you mean routes?",
                "2: route.0.upstream: there is no upstream apo, did you mean api?",
                "2: route.0.path: 'x' does not begin with /, a path such as /v1/orders, or /v1/* for all below it",
                "3: routs: unknown field, did you mean routes?",
            ],
        ),
        (
            "upstreams: {api: {endpoints: [http://a]}}\nroutes: [{path: /*, upstream: api}]\nroute: []\ntls: {}\n",
            [
                "3: route: unknown field, did you mean routes?",
                "4: tls: unknown field, write it in a listener, or in an upstream",
            ],
        ),
    ],
)
def test_a_misspelled_section_is_one_problem_and_hides_no_other(problems, text, reported):
    assert problems(text) == [f"edge.yaml:{line}" for line in reported]


def test_the_least_configuration_has_no_problem(problems):
    assert problems(LEAST) == []


def test_empty_edge_file_lacks_upstreams_and_routes(problems):
    assert problems("") == [
        "edge.yaml:1: upstreams: is missing, write upstreams: {api: {endpoints: [http://127.0.0.1:9001]}}",
        "edge.yaml:1: routes: is missing, write routes: [{path: /*, upstream: api}]",
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("region: [a]", f"region: is not a single value, {A_NAME}"),
        ("listen: []", "listen: is empty, write at least one"),
        ("listen: {address: 0.0.0.0:80, tsl: x}", "listen.tsl: unknown field, did you mean tls?"),
        ("listen: [{adress: 0.0.0.0:80}]", None),
        ("listen: https://0.0.0.0:443", f"listen: 'https://0.0.0.0:443' is a URL, {A_LISTENER}"),
        ("listen: {tls: {cert: a, key: b}}", "listen.address: is missing, write address: 127.0.0.1:8080"),
        (
            "listen: [{address: a:443, tls: edge.pem}]",
            "listen.0.tls: is not a mapping, write tls: {cert: certs/edge.pem, key: certs/edge.key}, or leave it out",
        ),
        ("listen: {address: a:443, tls: {crt: a}}", None),
        (
            "listen: {address: a:443, tls: {certificates: [a.pem]}}",
            "listen.tls.certificates.0: is not a mapping, "
            "write certificates: [{cert: certs/edge.pem, key: certs/edge.key}]",
        ),
        (
            "listen: {address: a:443, tls: {certificates: [{cert: a}]}}",
            "listen.tls.certificates.0.key: is missing, write key: certs/edge.key",
        ),
        ("tls: {cert: a, key: b}", "tls: unknown field, write it in a listener, or in an upstream"),
        ("access_log: true", f"access_log: 'true' is not a file to write to, {A_LOG}"),
        ("access_log: [a]", "access_log: is not a mapping, write access_log: var/access.log, or off"),
        ("access_log: {sample: 1%}", "access_log.file: is missing, write file: var/access.log"),
        ("access_log: {file: a, sample: 1}", f"access_log.sample: '1' is not a share, {A_SHARE}"),
        (
            "access_log: {file: a, sample: 0%}",
            "access_log.sample: is nothing at all, a share above 0% such as 1%",
        ),
        ("auth: {fields: [Cookie]}", f"auth.fields.0: Cookie has another meaning, {A_KEY_FIELD}"),
        ("auth: {fields: X_Key}", f"auth.fields: 'X_Key' is not the name of a field, {A_KEY_FIELD}"),
        ("auth: {fields: [X-Key, x-key]}", "auth.fields: names a field twice, leave one of them out"),
        ("auth: {fields: []}", "auth.fields: is empty, write at least one"),
        ("auth: {query: a b}", f"auth.query: 'a b' is not such a name, {A_PARAMETER}"),
        ("strip: [x_y]", f"strip.0: 'x_y' is not the name of a field, {A_STRIPPED}"),
        ("strip: [Host]", "strip.0: Host has a rule of its own, leave it out"),
        ("strip_except: [X-Forwarded-For]", "strip_except.0: X-Forwarded-For has a rule of its own, leave it out"),
        ("strip_except: [X-Mine]", f"strip_except.0: X-Mine passes in any case, {AN_EXCEPTION}"),
        ("strip_except: [X-Mine*]", f"strip_except.0: X-Mine* passes in any case, {AN_EXCEPTION}"),
        ("paths: {reject: [A]}", None),
        ("acces_log: off", "acces_log: unknown field, did you mean access_log?"),
        ("security_headers: maybe", "security_headers: 'maybe' is neither, write true or false"),
        ("limits: {conections: 5}", "limits.conections: unknown field, did you mean connections?"),
        ("limits: {pipelined: 0}", "limits.pipelined: 0 is out of range, a whole number from 1 to 10000"),
        (
            "limits: {connections: none}",
            "limits.connections: 'none' is not a whole number, a whole number from 1 to 10000000",
        ),
        ("admin: x", "admin: 'x' is not an address with a port, HOST:PORT such as 127.0.0.1:8080 or [::1]:8080"),
        ("workers: many", "workers: 'many' is not a whole number, auto, or a whole number from 1 to 224"),
        ("trusted_proxies: 10.0.0.0/8", "trusted_proxies: is not a list, write [ ] around it"),
        ("per_ip: 200/s", "per_ip: is not a mapping, write per_ip: {rate: 200/s}"),
        ("per_ip: {}", "per_ip.rate: is missing, write rate: 60/min"),
        ("meters: {m: {count: request}}", "meters.m.count: 'request' is not known here, did you mean requests?"),
        (
            "meters: {m: {count: requests, when: never}}",
            "meters.m.when: 'never' is not known here, write answered or success or admitted",
        ),
        ("meters: {m: {count: [requests]}}",
         "meters.m.count: is not a single value, write 'requests', 'bytes_in', 'bytes_out', 'grpc_messages', "
         "'grpc_messages_in', 'grpc_messages_out', 'cost', 'response_header', "
         "'response_trailer', 'events', 'holdings', 'refusals', 'input_tokens', 'cached_tokens', 'uncached_tokens', "
         "'output_tokens', 'total_tokens', 'cache_write_tokens', 'fresh_tokens', 'reasoning_tokens', "
         "'audio_input_tokens', 'audio_output_tokens', 'image_input_tokens', 'image_output_tokens' or "
         "'response_json'"),
        ("meters: {m: {count: bytes}}", "meters.m.count: 'bytes' is not known here, did you mean bytes_in?"),
        ("meters: {m: {count: response_header, header: 'X Tokens'}}",
         "meters.m.header: 'X Tokens' is not the name of a field, letters, digits and - such as X-Cost"),
        ("meters: {m: {count: response_header, header: X-Tokens, pass: maybe}}",
         "meters.m.pass: 'maybe' is neither, write true or false"),
        ("meters: [m]", "meters: is not a mapping, write NAME: and what it is"),
        ("tiers: {x: {rate: 5/s}}", None),
        (
            "tiers: {a b: {}}",
            "tiers.'a b': 'a b' is not a name, 1 to 64 letters, digits, - or _, the first a letter or a digit",
        ),
        ("customers: {acme: {}}", "customers.acme.tier: is missing, write tier: basic"),
        ("tiers: {t: {concurency: 5}}", "tiers.t.concurency: unknown field, did you mean concurrency?"),
        ("tiers: {t: {concurrency: 0}}",
         "tiers.t.concurrency: 0 is out of range, none, or a whole number from 1 to 268435455"),
        ("tiers: {t: {priority: high}}",
         "tiers.t.priority: 'high' is not a whole number, a whole number from 0 to 1000"),
        ("tiers: {t: {message: ''}}", "tiers.t.message: has 0 characters, one to 500 characters of text"),
        ("tiers: {t: {burst_credits: {earn: 10/s}}}", "tiers.t.burst_credits.max: is missing, write max: 600"),
        ("tiers: {t: {burst_credits: 10/s}}",
         "tiers.t.burst_credits: is not a mapping, write burst_credits: {earn: 10/s, max: 600}, or off"),
        ("tiers: {t: {quotas: {meter: requests}}}", "tiers.t.quotas: is not a list, write [ ] around it"),
        ("tiers: {t: {quotas: [requests]}}",
         "tiers.t.quotas.0: is not a mapping, write quotas: [{meter: requests, per: month, included: 100000}]"),
        ("tiers: {t: {quotas: [{meter: requests, per: month}]}}",
         "tiers.t.quotas.0.included: is missing, write included: 100000"),
        ("tiers: {t: {quotas: [{meter: requests, per: month, included: 1e6}]}}",
         "tiers.t.quotas.0.included: '1e6' is not a whole number, a whole number from 0 to 9007199254740991"),
        ("tiers: {t: {quotas: [{meter: requests, per: month, included: 1, timezone: Europe/Berln}]}}",
         "tiers.t.quotas.0.timezone: 'Europe/Berln' is not a time zone, did you mean Europe/Berlin?"),
        ("tiers: {t: {limits: [{rate: 5/s, algorithm: token_buket}]}}",
         "tiers.t.limits.0.algorithm: 'token_buket' is not known here, did you mean token_bucket?"),
        ("tiers: {t: {limits: [{rate: 5/s, scope: tier}]}}",
         "tiers.t.limits.0.scope: 'tier' is not known here, "
         "write customer or key or ip or route or customer_route"),
        ("tiers: {t: {limits: [{rate: 5/s, per: user}]}}",
         "tiers.t.limits.0.per: 'user' is not known here, write ip, or {header: X-End-User}"),
        ("tiers: {t: {limits: [{rate: 5/s, per: {header: X-User, query: user}}]}}",
         "tiers.t.limits.0.per: names no place or several, write one of header, query and claim"),
        ("tiers: {t: {limits: [{rate: 5/s, per: {}}]}}",
         "tiers.t.limits.0.per: names no place or several, write one of header, query and claim"),
        ("tiers: {t: {limits: [{rate: 5/s, per: {query: a b}}]}}",
         "tiers.t.limits.0.per.query: 'a b' names no claim or parameter, "
         "1 to 64 characters of ASCII without spaces, quotes and backslashes"),
        ("tiers: {t: {limits: [{rate: 5/s, per: {header: Connection}}]}}",
         "tiers.t.limits.0.per: Connection is for the edge itself, and is not looked at, name another field"),
        ("tiers: {t: {limits: [{rate: 5/s, per: {header: X-A}}, {rate: 6/s, per: {header: X-A}}]}}",
         "tiers.t.limits.1: has the window, algorithm, scope and mode of the one at edge.yaml:3, "
         "leave one of them out"),
        ("tiers: {t: {limits: [{rate: 5/s, cost_header: X Cost}]}}",
         "tiers.t.limits.0.cost_header: 'X Cost' is not the name of a field, letters, digits and - such as X-Cost"),
        ("overload: {lag: 50}", "overload.lag: '50' lacks a unit, a time such as 250ms, 5s or 2min"),
        ("overload: 4000", "overload: is not a mapping, write overload: {lag: 50ms, requests: 4000}, or leave it out"),
        ("hub: [redis://h]", "hub: is not a mapping, write hub: redis://HOST:PORT, or hub: {url: redis://HOST:PORT, "
         "sync: 1s, on_loss: share}"),
        ("hub: {url: redis://h, sync: 50ms}", "hub.sync: '50ms' is out of range, from 100ms to 10s"),
        ("hub: {url: redis://h, sync: 11s}", "hub.sync: '11s' is out of range, from 100ms to 10s"),
        ("hub: {on_loss: alow}", "hub.on_loss: 'alow' is not known here, write share or full or deny"),
        ("hub: {url: rediss://h, tls: yes}",
         "hub.tls: is not a mapping, write tls: {ca: certs/ca.pem}, or leave it out: rediss:// is enough"),
        ("hub: {url: rediss://h, tls: {servername: x}}",
         "hub.tls.servername: unknown field, known here: ca, cert, key, verify"),
        ("usage: http://127.0.0.1:9100", "usage: is not a mapping, write usage: "
         "{collector: http://127.0.0.1:9100, token: and a token of it}, or leave it out"),
        ("usage: {}", "usage.collector: is missing, write collector: http://127.0.0.1:9100"),
        ("usage: {collector: 'http://a', evry: 1s}", "usage.evry: unknown field, did you mean every?"),
        ("usage: {collector: 'http://a', every: 2min}", "usage.every: '2min' is out of range, from 100ms to 1min"),
        ("usage: {collector: 'http://a', token: 'a b'}", "usage.token: has white space, "
         "one text without spaces, best from the environment: ${COLLECTOR_TOKEN}"),
        ("usage: {collector: 'https://a', tls: yes}",
         "usage.tls: is not a mapping, write tls: {ca: certs/ca.pem}, or leave it out: https:// is enough"),
        ("flags: {new: {percent: 10%}}",
         "flags.new.percent: '10%' is not a whole number, a whole number from 0 to 100"),
        ("keys: [{customer: x}]", None),
        ("limits: {body: 5MB}", "limits.body: 'MB' is not a unit, write one of B, KiB, MiB, GiB"),
        ("limits: {head: 10B}", "limits.head: '10B' is out of range, from 1KiB to 1MiB"),
        ("stamp_secret: []", f"stamp_secret: is not a single value, {A_SECRET}"),
        ("sha256: x", "sha256: unknown field, leave it out"),
        ("drain: 5", "drain: '5' lacks a unit, a time such as 250ms, 5s or 2min"),
    ],
)  # fmt: skip
def test_problem_of_one_field_names_its_line(problems, text, problem):
    result = problems(LEAST + text + "\n")
    if problem is not None:
        assert result == [f"edge.yaml:3: {problem}"]
    assert all(line.startswith("edge.yaml:3: ") for line in result)
    assert result


@pytest.mark.parametrize(
    "text", ["strip: [CF-Connecting-IP]", "strip_except: [X-HTTP-Method-Override, x-envoy-*, X-E*, X-Envoy-Internal*]"]
)
def test_a_field_that_services_believe_of_proxies_may_be_named(problems, text):
    assert problems(LEAST + text + "\n") == []


@pytest.mark.parametrize(
    ("own", "problem"),
    [
        ("concurrency: off", "concurrency: 'off' is not a whole number, none, or a whole number from 1 to 268435455"),
        ("burst_credits: none", "burst_credits: is not a mapping, write burst_credits: {earn: 10/s, max: 600}, or off"),
        ("burst_credits: {earn: 10, max: 5}",
         "burst_credits.earn: '10' is not a rate, N/UNIT such as 60/min, 200/s or 100/10s"),
        ("burst_credits: {max: 5}", "burst_credits.earn: is missing, write earn: 10/s"),
        ("burst_credits: {earn: 10/s, max: 5, mx: 6}", "burst_credits.mx: unknown field, did you mean max?"),
        ("priority: none", "priority: 'none' is not a whole number, a whole number from 0 to 1000"),
        ("paused: unpaid",
         "paused: is not a mapping, write paused: {why: what the customer is told, status: 402}, or leave it out"),
        ("paused: {}", "paused.why: is missing, write why: and what the customer is told"),
        ("paused: {why: unpaid, status: 404}",
         "paused.status: '404' is not a status for this, 403, or 402 where it is about a payment"),
        ("regions: {allow: []}", "regions.allow: is empty, write at least one"),
        ("regions: {alow: [eu-west]}", "regions.alow: unknown field, did you mean allow?"),
    ],
)  # fmt: skip
def test_invalid_customer_override_is_reported(problems, own, problem):
    assert problems(LEAST + f"tiers: {{t: {{}}}}\ncustomers:\n  acme: {{tier: t, {own}}}\n") == [
        f"edge.yaml:5: customers.acme.{problem}"
    ]


@pytest.mark.parametrize(
    ("routes", "problem"),
    [
        ("[]", "routes: is empty, write at least one"),
        ("[{path: /, upstream: api, methods: []}]", "routes.0.methods: is empty, write at least one"),
        ("[{path: /, upstream: api, methods: GET}]", "routes.0.methods: is not a list, write [ ] around it"),
        ("[{path: /, upstream: api, auth: non}]", "routes.0.auth: 'non' is not known here, did you mean none?"),
        ("[{path: /, upstream: nope}]", "routes.0.upstream: there is no upstream nope, known here: api"),
        ("[/v1]", f"routes.0: is not a mapping, its fields are {', '.join(sorted(Route.model_fields))}"),
    ],
)  # fmt: skip
def test_problem_of_routes_names_its_field(problems, routes, problem):
    assert problems(f"upstreams: {{api: {{endpoints: ['http://a:1']}}}}\nroutes: {routes}\n") == [
        f"edge.yaml:2: {problem}"
    ]


@pytest.mark.parametrize(
    ("field", "problem"),
    [
        ("health: /healthz", "health: is not a mapping, write health: {path: /healthz, every: 5s}, or leave it out"),
        ("health: {every: 5s}", "health: has no path, write path: /healthz"),
        ("health: {path: /x, interval: 5s}", "health.interval: unknown field, known here: every, grpc, path"),
        ("health: {path: /x, every: 5}", f"health.every: '5' lacks a unit, {A_TIME}"),
        ("retry: off", "retry: is not a mapping, write retry: {attempts: 2, budget: 20%}; with attempts: 1 nothing is "
         "sent twice"),
        ("retry: {budget: 20}", f"retry.budget: '20' is not a share, {A_SHARE}"),
        ("retry: {attempts: 0}", "retry.attempts: 0 is out of range, a whole number from 1 to 10"),
        ("eject: on", "eject: is not a mapping, write eject: {errors: 5, for: 30s}, or eject: off"),
        ("eject: {errors: 0}", "eject.errors: 0 is out of range, a whole number from 1 to 1000000"),
        ("eject: {for_: 30s}", "eject.for_: unknown field, did you mean for?"),
        ("eject: {for: 0s}", f"eject.for: is zero, {A_TIME}"),
        ("breaker: 1000", "breaker: is not a mapping, write breaker: {pending: 1000}, or leave it out"),
        ("breaker: {}", "breaker.pending: is missing, write pending: 1000"),
        ("tls: true", "tls: is not a mapping, write tls: {ca: certs/ca.pem}, or leave it out: https:// is enough"),
        ("tls: {verfy: false}", "tls.verfy: unknown field, did you mean verify?"),
        ("weight: 2", "weight: unknown field, write it in an endpoint: {url: http://HOST:PORT, weight: 2}"),
    ],
)  # fmt: skip
def test_problem_of_an_upstream_names_its_field(problems, field, problem):
    upstreams = f"upstreams: {{api: {{endpoints: ['https://a'], {field}}}}}\n"
    assert problems(f"routes: [{{path: /, upstream: api}}]\n{upstreams}") == [f"edge.yaml:2: upstreams.api.{problem}"]


@pytest.mark.parametrize(
    ("endpoint", "problem"),
    [
        ("{url: 'http://a', weight: 0}", "weight: 0 is out of range, a whole number from 1 to 1000"),
        ("{url: 'http://a', wieght: 2}", "wieght: unknown field, did you mean weight?"),
        ("{url: 'http://a', region: eu west}", f"region: 'eu west' is not a name, {A_NAME}"),
        ("{weight: 2}", "url: is missing, write url: http://127.0.0.1:9001"),
    ],
)
def test_problem_of_an_endpoint_names_its_field(problems, endpoint, problem):
    upstreams = f"upstreams: {{api: {{endpoints: [{endpoint}]}}}}\n"
    assert problems(f"routes: [{{path: /, upstream: api}}]\n{upstreams}") == [
        f"edge.yaml:2: upstreams.api.endpoints.0.{problem}"
    ]


def test_names_that_are_like_fields_are_no_fields(problems):
    assert problems(LEAST + "tiers: {health: x}\n") == [
        "edge.yaml:3: tiers.health: is not a mapping, its fields are analytics, burst_credits, caps, concurrency, "
        "limits, message, priority, quotas"
    ]


def test_endpoints_that_are_wrong_are_not_also_none_at_all(problems):
    text = "routes: [{path: /, upstream: api}]\nupstreams:\n  api: {endpoints: [x]}\n"
    assert problems(text) == [f"edge.yaml:3: upstreams.api.endpoints.0: 'x' is not an http or https URL, {AN_ORIGIN}"]
    assert problems(text.replace("[x]", "[]")) == ["edge.yaml:3: upstreams.api.endpoints: is empty, write at least one"]


def test_problems_are_in_the_order_of_files_and_lines_with_the_files_own_indexes(problems):
    files = {"a.yaml": "routes:\n  - {path: /a, upstream: api}\n  - {path: /b, upstrem: api}\n"}
    assert problems(LEAST + "include: [a.yaml]\nworkers: x\nregion: '-'\n", files=files) == [
        "edge.yaml:4: workers: 'x' is not a whole number, auto, or a whole number from 1 to 224",
        "edge.yaml:5: region: '-' is not a name, 1 to 64 letters, digits, - or _, the first a letter or a digit",
        "a.yaml:3: routes.1: has no upstream, write upstream: api",
        "a.yaml:3: routes.1.upstrem: unknown field, did you mean upstream?",
    ]


def test_names_that_an_unreadable_file_may_define_are_not_complained_of(problems):
    text = "include: [tiers.yaml]\ncustomers: {acme: {tier: basic}}\nregion: '-'\n"
    assert problems(text) == [
        "edge.yaml:1: include.0: tiers.yaml cannot be read: No such file or directory, name a file that can be read",
        "edge.yaml:3: region: '-' is not a name, 1 to 64 letters, digits, - or _, the first a letter or a digit",
    ]


def test_values_that_could_not_be_had_are_complained_of_once(problems):
    assert problems(
        LEAST + "listen: ${LISTEN}\ntiers:\ncustomers: {acme: {tier: ${TIER}}}\n".replace("${TIER}", "'${TIER}'")
    ) == [
        "edge.yaml:3: listen: the environment has no variable LISTEN, set it, or write ${LISTEN:-default}",
        "edge.yaml:4: tiers: has no value, write one, or leave it out",
        "edge.yaml:5: customers.acme.tier: the environment has no variable TIER, set it, or write ${TIER:-default}",
    ]


def test_a_section_that_is_no_section_hides_nothing_else(problems):
    assert problems(LEAST + "tiers: [a]\ncustomers: {acme: {tier: basic}, b: {tier: '-'}, c: x}\nkeys: {a: b}\n") == [
        "edge.yaml:3: tiers: is not a mapping, write NAME: and what it is",
        f"edge.yaml:4: customers.b.tier: '-' is not a name, {A_NAME}",
        "edge.yaml:4: customers.c: is not a mapping, its fields are burst_credits, caps, concurrency, flags, limits, "
        "message, moved, networks, paused, priority, quotas, regions, revoked, tier",
        "edge.yaml:5: keys: is not a list, write [ ] around it",
    ]  # fmt: skip


def test_problems_hide_keys_and_passwords(problems):
    result = problems(
        "hub: postgres://me:secret@host\nkeys: [{sha256: ek_live_secret, customer: a}]\n"
        "upstreams: {api: {endpoints: ['http://me:secret@host']}}\nroutes: [{path: /, upstream: api}]\n"
    )
    assert len(result) == 4
    assert "secret" not in "\n".join(result)


@pytest.mark.parametrize(
    "url",
    [
        *("secret", "me:secret@host", "redis:secret@host", "redis:///:secret@host", "redis://:secret@"),
        *("redis://me:a/secret@host", "redis://me:1/secret@host", "redis://me:?secret@host", "redis://me:#secret@host"),
        *("redis://me:secret@host:port", "redis://me:secret@host/db", "redis://me:sec[secret@h", "redis://h?p=secret"),
        *("redis+cluster://me:secret@host/0", "redis://me:secret@host:0", "rediss://me@secret:70000"),
    ],
)
@pytest.mark.parametrize("form", ["hub: '%s'", "hub: {url: '%s', tls: {ca: x}}"])
def test_no_url_of_a_hub_is_shown(problems, form, url):
    result = problems(LEAST + form % url + "\n")
    assert result
    assert "secret" not in "\n".join(result)


def test_an_alias_may_be_in_several_places(loaded):
    settings = loaded("tiers:\n  a: &t {limits: [{rate: 1/s}, {rate: 2/min}]}\n  b: *t\n")
    assert [limit.name for limit in settings.tiers["a"].limits] == ["a", "a-2"]
    assert [limit.name for limit in settings.tiers["b"].limits] == ["b", "b-2"]
