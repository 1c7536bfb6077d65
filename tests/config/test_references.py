"""Checks across sections: names must be defined, and entries must be unique."""

import pytest

from edgeproxy.config import parsers
from edgeproxy.edge.http1.fields import RESPONSE, FieldKind
from tests.config.conftest import LEAST


@pytest.fixture
def reads_files():
    return False


UPSTREAM = "upstreams: {api: {endpoints: [http://127.0.0.1:9001]}}\n"


def routes(problems, *lines):
    """Return the problems of these routes. The first route is in line 3."""
    return problems(UPSTREAM + "routes:\n" + "".join(f"  - {{upstream: api, {line}}}\n" for line in lines))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("path: /a", "path: /a"),
        ("path: /a/*, host: A.example.", "path: /a/*, host: a.example"),
        ("path: /a, methods: [GET, PUT]", "path: /a, methods: [PUT, POST]"),
        ("path: /a, headers: {X-A: [b, c]}, query: {q: 1}", "path: /a, headers: {x-a: [c, b]}, query: {q: [1]}"),
    ],
)
def test_two_routes_cannot_take_the_same_requests(problems, first, second):
    method = "PUT " if "PUT" in first else ""
    assert routes(problems, first, second) == [
        f"edge.yaml:4: routes.1: takes the {method}requests of the route at edge.yaml:3, "
        "leave one of them out, or give them other methods, headers or query"
    ]


@pytest.mark.parametrize(
    ("route", "problem"),
    [
        ("headers: {X-API-Key: a}", "headers.X-API-Key: may hold a key"),
        ("headers: {x-a: a, X-A: b}", "headers.X-A: is the field that is written already at"),
        ("headers: {Host: a}", "headers.Host: 'Host' is not a field that routes match, write host"),
        ("headers: {X-Forwarded-Proto: https}", "headers.X-Forwarded-Proto: 'X-Forwarded-Proto' is not a field"),
        ("headers: {X-A: 'a '}", "headers.X-A: 'a ' is not the value of a field"),
        ("query: {'': a}", "query.'': '' is not a text of a query"),
        ("query: {a: []}", "query.a"),
    ],
)
def test_condition_that_no_request_meets_is_refused(problems, route, problem):
    (fault,) = routes(problems, f"path: /a, {route}")
    assert fault.startswith(f"edge.yaml:3: routes.0.{problem}")


def test_condition_about_the_query_of_keys_is_refused(problems):
    text = "auth: {query: key}\nroutes:\n  - {path: /a, upstream: api, query: {key: a, other: b}}\n"
    (fault,) = problems(UPSTREAM + text)
    assert fault.startswith("edge.yaml:4: routes.0.query.key: may hold a key")


def test_prefix_with_a_wildcard_is_not_stripped(problems):
    assert routes(problems, "path: /u/*/x/*, rewrite: {strip: /u/*/x}") == [
        "edge.yaml:3: routes.0.rewrite.strip: has a wildcard, name the segments before it, or none"
    ]


def test_route_names_are_unique(problems):
    assert routes(problems, "path: /a, name: x", "path: /b, name: x") == [
        "edge.yaml:4: routes.1.name: is defined already at edge.yaml:3, give one of them another name"
    ]


def test_a_long_label_needs_a_name(problems):
    host, path = "a" * 60 + ".example", "/" + "p" * 32
    assert routes(problems, f"host: {host}, path: {path}") == [
        "edge.yaml:3: routes.0: host and path make a label of 101 bytes, above 100, give the route a name"
    ]
    assert routes(problems, f"host: {host}, path: {path[:-1]}") == []
    assert routes(problems, f"host: {host}, path: {path}, name: x") == []


def test_a_challenge_needs_basic_auth(problems):
    assert routes(problems, "path: /a, challenge: basic") == [
        "edge.yaml:3: routes.0.challenge: asks for what the edge does not read, write auth: {basic: on}, too"
    ]


def test_scopes_need_a_key(problems):
    assert routes(problems, "path: /a, auth: none, scopes: [read]") == [
        "edge.yaml:3: routes.0.scopes: nobody's key is looked at with auth: none, leave one of them out"
    ]
    assert routes(problems, "path: /a, auth: none, scopes: []", "path: /b, auth: optional, scopes: [read]") == []


def test_malformed_routes_are_reported_by_the_models(problems):
    assert len(routes(problems, "path: [a], name: [b]", "path: /b, host: [c], methods: [[d]]")) == 4


def test_a_file_cannot_define_the_flag_billing_stopped(problems):
    assert problems(LEAST + "flags: {billing-stopped: {percent: 100}}\n") == [
        "edge.yaml:3: flags.billing-stopped: is the flag by which billing frees everybody, take another name"
    ]


@pytest.mark.parametrize("secret", ["", 'stamp_secret: ""\n'])
def test_a_signature_needs_a_secret(problems, secret):
    assert problems(f"{LEAST}{secret}stamp_signature: v2\n") == [
        f"edge.yaml:{3 + bool(secret)}: stamp_signature: signs nothing without a secret, write stamp_secret, too"
    ]


def test_a_repeated_key_is_a_problem(problems):
    keys = "".join(f"  - {{sha256: {sha}, customer: acme}}\n" for sha in ("ab" * 32, "cd" * 32, "AB" * 32))
    assert problems(LEAST + "tiers: {t: {}}\ncustomers: {acme: {tier: t}}\nkeys:\n" + keys) == [
        "edge.yaml:8: keys.2.sha256: is the key that is defined already at edge.yaml:6, leave one of them out"
    ]


def test_a_key_has_a_digest_or_a_certificate_and_each_is_unique(problems):
    written = (f"certificate: a, sha256: {'ab' * 32}", "certificate: b", "certificate: b", "certificate: [c]")
    keys = "".join(f"  - {{{each}, customer: acme}}\n" for each in (*written, "certificate: ''"))
    result = problems(LEAST + "tiers: {t: {}}\ncustomers: {acme: {tier: t}}\nkeys:\n" + keys)
    assert [problem.partition(",")[0] for problem in result[:2]] == [
        "edge.yaml:6: keys.0.certificate: stands beside sha256: it is one or the other",
        "edge.yaml:8: keys.2.certificate: is the certificate that is defined already at edge.yaml:7",
    ]
    assert sorted(problem.partition(": ")[2].partition(": ")[0] for problem in result[2:]) == [
        "keys.3.certificate",
        "keys.3.sha256",
        "keys.4.certificate",
    ]


def test_a_repeated_issuer_is_a_problem(problems):
    issuers = "".join(
        f"  {name}: {{issuer: {issuer}, jwks: https://{name}.example/keys, audiences: [api]}}\n"
        for name, issuer in (("a", "https://id.example"), ("b", "https://id.example/"), ("c", "https://id.example"))
    )
    assert problems(f"{LEAST}issuers:\n{issuers}") == [
        "edge.yaml:6: issuers.c.issuer: is the issuer that is defined already at edge.yaml:4, leave one of them out"
    ]


@pytest.mark.parametrize(
    "section", ["tiers: {t: {limits: LIMITS}}", "tiers: {t: {}}\ncustomers: {a: {tier: t, limits: LIMITS}}"]
)
@pytest.mark.parametrize(
    ("limits", "index", "what", "hint"),
    [
        (
            "[{rate: 5/s}, {rate: 5/min}, {rate: 9/60s, algorithm: sliding_window, scope: customer, mode: enforce}]",
            2,
            "has the window, algorithm, scope and mode of the one at",
            "leave one of them out",
        ),
        (
            "[{rate: 5/s, algorithm: hybrid, burst: 1}, {rate: 5/s}, {rate: 6/s, algorithm: hybrid, burst: 2}]",
            2,
            "has the window, algorithm, scope and mode of the one at",
            "leave one of them out",
        ),
        (
            "[{rate: 5/s, scope: ip, mode: shadow, cost_header: X}, {rate: 5/s}, {rate: 6/s, scope: ip, mode: shadow}]",
            2,
            "has the window, algorithm, scope and mode of the one at",
            "leave one of them out",
        ),
        (
            "[{rate: 5/s, name: x}, {rate: 5/min, name: x}]",
            1,
            "is called x like the one at",
            "give one of them another name",
        ),
        (
            "[{rate: 5/s, name: t-2}, {rate: 5/min}]",
            1,
            "is called t-2 like the one at",
            "give one of them another name",
        ),
    ],
)
def test_limits_with_equal_keys_or_names_are_a_problem(problems, section, limits, index, what, hint):
    text = LEAST + section.replace("LIMITS", limits)
    line = len(text.splitlines())
    whose = "customers.a" if "customers" in section else "tiers.t"
    assert problems(text) == [f"edge.yaml:{line}: {whose}.limits.{index}: {what} edge.yaml:{line}, {hint}"]


def test_a_limit_with_a_cost_header_cannot_be_strict(problems):
    limits = "[{rate: 5/s, cost_header: X-C, sync: strict}, {rate: 5/min, cost_header: X-C}, {rate: 5/h, sync: strict}]"
    text = LEAST + f"tiers: {{t: {{limits: {limits}}}}}"
    line = len(text.splitlines())
    assert problems(text) == [
        f"edge.yaml:{line}: tiers.t.limits.0.sync: cannot be kept where costs are known only afterwards, leave it out, "
        "or leave out cost_header"
    ]


def test_limits_of_a_route_have_the_scope_customer_route(problems):
    assert routes(problems, "path: /a, limits: [{rate: 5/s}, {rate: 6/s, scope: customer_route}]") == [
        "edge.yaml:3: routes.0.limits.1: has the window, algorithm, scope and mode of the one at edge.yaml:3, "
        "leave one of them out"
    ]
    assert routes(problems, "path: /a, limits: [{rate: 5/s}, {rate: 5/min, name: a}]") == [
        "edge.yaml:3: routes.0.limits.1: is called a like the one at edge.yaml:3, give one of them another name"
    ]
    assert routes(problems, "path: /a, limits: [{rate: 5/s}]", "path: /b, limits: [{rate: 5/s, name: a}]") == []


@pytest.mark.parametrize(("one", "other"), [("customer", "key"), ("ip", "customer"), ("key", "ip")])
def test_without_keys_customer_key_and_ip_limits_all_count_by_address(problems, one, other):
    limits = f"limits: [{{rate: 5/s, scope: {one}}}, {{rate: 6/s, scope: {other}}}, {{rate: 5/s, scope: route}}]"
    what = (
        "limits.1: counts by address, with the window, algorithm and mode of the one at edge.yaml:3, "
        "leave one of them out"
    )
    assert problems(LEAST + f"tiers: {{anonymous: {{{limits}}}}}\n") == [f"edge.yaml:3: tiers.anonymous.{what}"]
    assert routes(problems, f"path: /a, auth: none, {limits}") == [f"edge.yaml:3: routes.0.{what}"]
    assert routes(problems, f"path: /a, auth: optional, {limits}") == []
    assert problems(LEAST + f"tiers: {{t: {{}}}}\ncustomers: {{anonymous: {{tier: t, {limits}}}}}\n") == []


@pytest.mark.parametrize("algorithm", ["", ", algorithm: sliding_window"])
def test_burst_needs_a_bucket_algorithm(problems, algorithm):
    complaints = (
        "burst: is the depth of a bucket, which a sliding_window has not, "
        "write algorithm: token_bucket or hybrid, or leave it out"
    )
    limits = f"limits: [{{rate: 5/min}}, {{rate: 5/s, burst: 5{algorithm}}}]"
    assert problems(LEAST + f"tiers: {{t: {{{limits}}}}}\n") == [f"edge.yaml:3: tiers.t.limits.1.{complaints}"]
    assert problems(LEAST + f"tiers: {{t: {{}}}}\ncustomers: {{a: {{tier: t, {limits}}}}}\n") == [
        f"edge.yaml:4: customers.a.limits.1.{complaints}"
    ]
    assert routes(problems, f"path: /a, {limits}") == [f"edge.yaml:3: routes.0.limits.1.{complaints}"]


@pytest.mark.parametrize("algorithm", ["token_bucket", "hybrid"])
def test_a_bucket_may_have_any_burst(problems, algorithm):
    assert problems(LEAST + f"tiers: {{t: {{limits: [{{rate: 5/s, burst: 500, algorithm: {algorithm}}}]}}}}\n") == []


MONTHLY = "{meter: requests, per: month, included: 5}"


@pytest.mark.parametrize("same", ["timezone: UTC", "cap: hard", "included: 6"])
@pytest.mark.parametrize("section", ["tiers: {t: {QUOTAS}}", "tiers: {t: {}}\ncustomers: {c: {tier: t, QUOTAS}}"])
def test_quotas_with_equal_meter_and_period_are_a_problem(problems, section, same):
    quota = {"meter": "requests", "per": "month", "included": 5, **dict([same.split(": ")])}
    second = ", ".join(f"{field}: {value}" for field, value in quota.items())
    text = LEAST + section.replace("QUOTAS", f"quotas: [{MONTHLY}, {{{second}}}]")
    line, whose = len(text.splitlines()), "customers.c" if "customers" in section else "tiers.t"
    assert problems(text) == [
        f"edge.yaml:{line}: {whose}.quotas.1: has the meter, time and time zone of the one at edge.yaml:{line}, "
        "leave one of them out"
    ]


def test_malformed_quotas_are_reported_by_the_models(problems):
    text = LEAST + "tiers: {t: {quotas: [x, {meter: [y]}, {meter: [y]}]}, u: {quotas: {}}}\n"
    assert len(problems(text)) == 1 + 2 + 2 + 1


def test_a_quota_of_holdings_has_no_period_and_others_need_one(problems):
    meters = "meters: {tokens: {count: events}, seats: {count: holdings}, hits: {count: requests}}\n"

    def complaints(quota):
        return problems(LEAST + meters + f"tiers: {{t: {{quotas: [{quota}]}}}}\n")

    where = "edge.yaml:4: tiers.t.quotas.0"
    assert complaints("{meter: tokens, per: month, included: 5, cap: hard}") == []
    assert complaints("{meter: seats, included: 5}, {meter: hits, included: 5, per: day}") == []
    for meter in ("tokens", "hits"):
        assert complaints(f"{{meter: {meter}, included: 5}}") == [
            f"{where}: lacks the time after which it begins anew, write per: month, or per: day"
        ]
    assert complaints("{meter: seats, included: 5, per: day, timezone: Europe/Berlin}") == [
        f"{where}.{name}: seats counts what exists, at any time, leave {name} out" for name in ("per", "timezone")
    ]
    assert len(complaints("{meter: seats, included: 5}, {meter: seats, included: 6}")) == 1
    without = "tiers: {t: {quotas: [{meter: requests, included: 5}]}}\n"
    assert problems(LEAST + without) == [
        "edge.yaml:3: tiers.t.quotas.0: lacks the time after which it begins anew, write per: month, or per: day"
    ]


def test_the_meter_of_a_quota_must_exist(problems):
    missing = "{meter: request, per: day, included: 5}"
    assert problems(LEAST + f"tiers: {{t: {{quotas: [{MONTHLY}, {missing}]}}}}\n") == [
        "edge.yaml:3: tiers.t.quotas.1.meter: there is no meter request, did you mean requests?"
    ]
    assert problems(LEAST + f"tiers: {{t: {{}}}}\ncustomers: {{c: {{tier: t, quotas: [{missing}]}}}}\n") == [
        "edge.yaml:4: customers.c.quotas.0.meter: there is no meter request, did you mean requests?"
    ]
    hits = "meters: {hits: {count: requests}}\n"
    assert problems(LEAST + hits + f"tiers: {{t: {{quotas: [{MONTHLY}]}}}}\n") == [
        "edge.yaml:4: tiers.t.quotas.0.meter: there is no meter requests, known here: hits"
    ]


@pytest.mark.parametrize("what", ["response_header", "response_trailer"])
def test_a_reported_meter_needs_a_header_of_its_own(problems, what):
    def complaints(rest):
        return problems(LEAST + f"meters: {{m: {{count: {what}{rest}}}}}\n")

    assert complaints("") == [
        "edge.yaml:3: meters.m: lacks the field in which upstreams report it, write header: X-Usage-Tokens"
    ]
    assert complaints(", header: Content-Length") == [
        "edge.yaml:3: meters.m.header: Content-Length is for the edge itself, and is not looked at, "
        "have upstreams report it in a field of its own, such as X-Usage-Tokens"
    ]
    assert complaints(", header: X-Usage-Tokens, pass: true") == []
    assert len(complaints(", header: [x]")) == 1


@pytest.mark.parametrize("what", ["requests", "bytes_in", "bytes_out", "cost"])
def test_other_meters_have_no_header(problems, what):
    result = problems(LEAST + f"meters: {{m: {{count: {what}, header: X-Usage-Tokens, pass: true}}}}\n")
    hint = "write count: response_header, or leave it out"
    assert result == [
        f"edge.yaml:3: meters.m.{field}: is of what upstreams report, not of {what}, {hint}"
        for field in ("header", "pass")
    ]
    assert problems(LEAST + f"meters: {{m: {{count: {what}}}}}\n") == []


@pytest.mark.parametrize("what", ["grpc_messages", "grpc_messages_in", "grpc_messages_out"])
def test_grpc_messages_cannot_count_at_admission(problems, what):
    assert problems(LEAST + f"meters: {{m: {{count: {what}, when: admitted}}}}\n") == [
        "edge.yaml:3: meters.m.when: counts before the answer, which says whether a call is one of gRPC, write when: "
        "answered, or leave it out"
    ]
    assert problems(LEAST + f"meters: {{m: {{count: {what}, when: success}}}}\n") == []


def test_own_fields_equal_the_response_fields_that_the_edge_handles():
    """The layers forbid one module to import the other table, so this test keeps the two equal."""
    own = {name.decode() for name, kind in RESPONSE.items() if kind not in (FieldKind.SECURITY, FieldKind.PLACE)}
    assert own == parsers.OWN_FIELDS


def test_a_quota_may_name_a_meter_of_an_included_file(problems):
    text = f"tiers: {{t: {{quotas: [{MONTHLY.replace('requests', 'hits')}]}}}}\n"
    files = {"meters.yaml": "meters: {hits: {count: requests}}\n"}
    assert problems(LEAST + text + "include: meters.yaml\n", {}, files) == []


def test_names_in_flags_must_be_defined(problems):
    text = LEAST.replace("upstream: api}", "upstream: api, flag: new-ap}") + (
        "tiers: {pro: {}}\ncustomers: {acme: {tier: pro}}\n"
        "flags: {new-api: {tiers: [pro, prp], customers: [nobody, acme]}, old: {tiers: pro}, more: [x]}\n"
    )
    assert problems(text) == [
        "edge.yaml:2: routes.0.flag: there is no flag new-ap, did you mean new-api?",
        "edge.yaml:5: flags.new-api.tiers.1: there is no tier prp, did you mean pro?",
        "edge.yaml:5: flags.new-api.customers.0: there is no customer nobody, known here: acme",
        "edge.yaml:5: flags.old.tiers: is not a list, write [ ] around it",
        "edge.yaml:5: flags.more: is not a mapping, its fields are customers, percent, tiers",
    ]


def test_a_route_cannot_name_a_flag_without_a_flags_section(problems):
    assert routes(problems, "path: /, flag: new-api") == [
        "edge.yaml:3: routes.0.flag: there is no flag new-api, define it in flags"
    ]


def test_a_preferred_region_must_be_allowed(problems):
    def customer(regions):
        return problems(LEAST + f"tiers: {{t: {{}}}}\ncustomers: {{c: {{tier: t, regions: {regions}}}}}\n")

    assert customer("{allow: [eu-west, eu-north], prefer: us-east}") == [
        "edge.yaml:4: customers.c.regions.prefer: 'us-east' is not in allow, name it there too, or prefer one of those"
    ]
    assert customer("{allow: [eu-west, eu-north], prefer: eu-north}") == []
    assert customer("{prefer: us-east}") == customer("{allow: [us-east]}") == []
    assert len(customer("{allow: us-east, prefer: [us-east]}")) == 2
    assert customer("eu-west") == [
        "edge.yaml:4: customers.c.regions: is not a mapping, "
        "write regions: {allow: [eu-west], prefer: eu-west}, or leave it out"
    ]


@pytest.mark.parametrize("field", ["algorithm", "mode", "scope", "burst", "name", "cost_header"])
def test_a_limit_with_a_list_as_a_value_is_reported_by_the_models(problems, field):
    bucket = "" if field == "algorithm" else "algorithm: hybrid, "
    (result,) = problems(LEAST + f"tiers: {{t: {{limits: [{{rate: 1/min}}, {{rate: 5/s, {bucket}{field}: [x]}}]}}}}\n")
    assert result.startswith(f"edge.yaml:3: tiers.t.limits.1.{field}: is not a single value, ")


def test_limits_of_units_exclude_other_ways_of_counting(problems):
    meters = (
        "meters: {all: {count: total_tokens}, units: {count: response_json, json: u}, requests: {count: requests}}\n"
    )
    for limit, problem in (
        ("of: all, cost_header: X-C", ".cost_header: cannot stand beside of, leave out one of them"),
        ("of: all, mode: shadow", ".mode: cannot stand beside of, leave out one of them"),
        ("of: all, sync: strict", ".sync: cannot stand beside of, leave out one of them"),
        ("of: all, reserve: 10", ": reserves 10, and never has more than 9, reserve less"),
        ("of: all, reserve: request, reserve_max: 10", ": reserves 10, and never has more than 9, reserve less"),
        (
            "of: all, reserve: 2, reserve_max: 3",
            ".reserve_max: is of what requests tell, write reserve: request beside it",
        ),
        ("reserve_max: 1", ".reserve_max: is of limits of what answers state, write of: METER beside it"),
        (
            "of: units, reserve: request",
            ".reserve: request tells tokens, and units counts no tokens, write a number of units",
        ),
        ("reserve: 1", ".reserve: is of limits of what answers state, write of: METER beside it"),
        ("of: al", ".of: there is no meter al, did you mean all?"),
    ):
        assert problems(LEAST + meters + f"tiers: {{t: {{limits: [{{rate: 9/s, {limit}}}]}}}}\n") == [
            f"edge.yaml:4: tiers.t.limits.0{problem}"
        ]
    (problem,) = problems(LEAST + "tiers: {t: {limits: [{rate: 9/s, of: requests}]}}\n")
    assert "tiers.t.limits.0.of: requests counts nothing that bodies of answers state, write " in problem


def test_malformed_limits_are_reported_by_the_models(problems):
    assert problems(LEAST + "tiers: {t: {limits: [x, {rate: y}]}, u: {limits: z}}\n") == [
        "edge.yaml:3: tiers.t.limits.0: is not a mapping, its fields are algorithm, burst, cost_header, mode, name, "
        "of, per, rate, reserve, reserve_max, routes, scope, scopes, sync",
        "edge.yaml:3: tiers.t.limits.1.rate: 'y' is not a rate, N/UNIT such as 60/min, 200/s or 100/10s",
        "edge.yaml:3: tiers.u.limits: is not a list, write [ ] around it",
    ]  # fmt: skip


def listener_tls(problems, tls):
    """Return the problems of a listener with this TLS. The listener is in line 3."""
    return problems(LEAST + f"listen: {{address: 0.0.0.0:443, tls: {tls}}}\n")


@pytest.mark.parametrize("tls", ["{}", "{certificates: []}", "{client_ca: ca.pem}"])
def test_tls_of_a_listener_needs_a_certificate(problems, tls):
    assert listener_tls(problems, tls) == [
        "edge.yaml:3: listen.tls: has no certificate, write cert: FILE and key: FILE"
    ]


@pytest.mark.parametrize(("one", "other"), [("cert", "key"), ("key", "cert")])
@pytest.mark.parametrize("rest", ["", ", client_ca: ca", ", certificates: [{cert: a, key: b}]"])
def test_a_listeners_certificate_needs_its_key(problems, one, other, rest):
    assert listener_tls(problems, f"{{{one}: x{rest}}}") == [
        f"edge.yaml:3: listen.tls.{one}: stands without its {other}, write {other}: FILE beside it"
    ]


@pytest.mark.parametrize(
    "tls", ["{cert: a, key: b}", "{certificates: [{cert: a, key: b}]}", "{cert: a, key: a, certificates: []}"]
)
def test_a_listener_with_a_certificate_and_its_key_is_valid(problems, tls):
    assert listener_tls(problems, tls) == []


def upstream(problems, fields):
    """Return the problems of an upstream with these fields. The upstream is in line 2."""
    return problems(f"routes: [{{path: /, upstream: api}}]\nupstreams: {{api: {{{fields}}}}}\n")


@pytest.mark.parametrize(
    ("one", "same", "url"),
    [
        ("http://a:1", "http://a:1", "http://a:1"),
        ("http://a", "http://A:80/", "http://a:80"),
        ("https://a", "{url: 'https://a:443', weight: 2}", "https://a:443"),
        ("http://[::1]:1", "http://[0::1]:1", "http://[::1]:1"),
    ],
)
def test_a_repeated_endpoint_is_a_problem(problems, one, same, url):
    same = same if same.startswith("{") else f"'{same}'"
    assert upstream(problems, f"endpoints: ['{one}', 'http://other', {same}]") == [
        f"edge.yaml:2: upstreams.api.endpoints.2: is {url} like edge.yaml:2, "
        "leave one of them out, and give the other a weight"
    ]


def test_upstreams_may_share_an_endpoint(problems):
    assert problems(LEAST.replace("api: {", "b: {endpoints: [http://127.0.0.1:9001]}, api: {")) == []


@pytest.mark.parametrize("tls", ["{ca: x}", "{verify: false}", "{server_name: x}", "{cert: a, key: b}"])
def test_tls_of_an_upstream_needs_an_https_endpoint(problems, tls):
    assert upstream(problems, f"endpoints: ['http://a', {{url: 'http://b'}}], tls: {tls}") == [
        "edge.yaml:2: upstreams.api.tls: says nothing to http:// endpoints, write https:// there, or leave it out"
    ]
    assert upstream(problems, f"endpoints: ['http://a', 'https://b'], tls: {tls}") == []


def test_empty_tls_needs_no_https_endpoint(problems):
    assert upstream(problems, "endpoints: ['http://a'], tls: {}") == []


def test_h2_needs_https_endpoints_and_h2c_needs_http(problems):
    hint = "write the other protocol, h2 or h2c"
    assert upstream(problems, "endpoints: ['http://a', 'https://b'], protocol: h2c") == [
        f"edge.yaml:2: upstreams.api.endpoints.1: is not http://, as h2c is spoken without TLS, {hint}"
    ]
    assert upstream(problems, "endpoints: ['http://a'], protocol: h2") == [
        f"edge.yaml:2: upstreams.api.endpoints.0: is not https://, as h2 is spoken over TLS, {hint}"
    ]
    assert upstream(problems, "endpoints: ['https://a'], protocol: h2") == []
    assert upstream(problems, "endpoints: ['http://a'], protocol: h2c, proxy_protocol: v2") == [
        "edge.yaml:2: upstreams.api.proxy_protocol: is of one client, and connections of h2c carry requests of many, "
        "leave it out: X-Forwarded-For has the address"
    ]


def test_probes_and_upgrades_must_fit_the_protocol_of_the_upstream(problems):
    at, named = "edge.yaml:2: upstreams.api.health", "write grpc with the name of a service"
    for health, protocol, expected in (
        (
            "path: /",
            "h2c",
            ".path: is asked over HTTP/1.1, and the service speaks h2c, write grpc with the name of a service",
        ),
        ("grpc: a", "http/1.1", ".grpc: is asked over HTTP/2, write protocol: h2c at the upstream, or path"),
        ("every: 1s", "http/1.1", ": has no path, write path: /healthz"),
        ("every: 1s", "h2c", f': has no grpc, {named}, or ""'),
    ):
        text = f"endpoints: ['http://a'], protocol: {protocol}, health: {{{health}}}"
        assert upstream(problems, text)[:1] == [at + expected]
    assert upstream(problems, "endpoints: ['http://a'], protocol: h2c, health: {grpc: ''}") == []
    http2 = "upstreams: {api: {endpoints: ['http://a'], protocol: h2c}}\n"
    assert problems(http2 + "routes: [{path: /ws, upstream: api, upgrade: [websocket]}]\n") == [
        "edge.yaml:2: routes.0.upgrade: leads to an upstream that speaks HTTP/2, where nothing is switched, "
        "leave it out, or give the route another upstream"
    ]


def test_an_unreadable_endpoint_may_count_as_an_https_one(problems):
    assert len(upstream(problems, "endpoints: ['http://a', 'b:443'], tls: {ca: x}")) == 1
    assert len(upstream(problems, "endpoints: ['http://a', '${B}'], tls: {ca: x}")) == 1
    assert len(upstream(problems, "endpoints: ['http://a', {weight: 2}], tls: {ca: x}")) == 1


@pytest.mark.parametrize(("one", "other"), [("cert", "key"), ("key", "cert")])
def test_a_client_certificate_needs_its_key(problems, one, other):
    assert upstream(problems, f"endpoints: ['https://a'], tls: {{{one}: x}}") == [
        f"edge.yaml:2: upstreams.api.tls.{one}: stands without its {other}, write {other}: FILE beside it"
    ]


def test_a_ca_without_verification_is_a_problem(problems):
    assert upstream(problems, "endpoints: ['https://a'], tls: {verify: No, ca: x}") == [
        "edge.yaml:2: upstreams.api.tls.verify: false leaves ca unread, leave one of them out"
    ]
    assert upstream(problems, "endpoints: ['https://a'], tls: {verify: yes, ca: x}") == []
    assert upstream(problems, "endpoints: ['https://a'], tls: {verify: false, server_name: x}") == []
    assert len(upstream(problems, "endpoints: ['https://a'], tls: {verify: [false], ca: x}")) == 1


def test_malformed_upstreams_are_reported_by_the_models(problems):
    assert upstream(problems, "endpoints: 'http://a', tls: [x]") == [
        "edge.yaml:2: upstreams.api.endpoints: is not a list, write [ ] around it",
        "edge.yaml:2: upstreams.api.tls: is not a mapping, write tls: {ca: certs/ca.pem}, or leave it out: "
        "https:// is enough",
    ]


def usage(problems, complaints):
    """Return the problems of this `usage`. The section is in line 3."""
    return problems(LEAST + f"usage: {{{complaints}}}\n")


def test_tls_of_usage_needs_an_https_collector(problems):
    assert usage(problems, "collector: HTTP://a, tls: {ca: x}")[-1:] == [
        "edge.yaml:3: usage.tls: says nothing to a collector of http://, write https:// there, or leave it out"
    ]
    for right in ("'https://a', tls: {ca: x}", "'http://a', tls: {}", "'http://a'"):
        assert usage(problems, f"collector: {right}") == []
    assert len(usage(problems, "collector: '${C}', tls: {ca: x}")) == 1
    assert len(usage(problems, "collector: [a], tls: {ca: x}")) == 1
    assert len(usage(problems, "collector: 'https://a', tls: [x]")) == 1


def hub(problems, complaints):
    """Return the problems of this `hub`. The section is in line 3."""
    return problems(LEAST + f"hub: {{{complaints}}}\n")


@pytest.mark.parametrize("half", ["service: hub", "sentinel: [a, b]"])
def test_sentinels_need_a_service(problems, half):
    assert "edge.yaml:3: hub: has one of sentinel and service, write both, or sentinel and url: redis://SERVICE" in hub(
        problems, half
    )


@pytest.mark.parametrize("url", ["url: redis://a", "sentinel: [a], url: redis://hub"])
def test_a_service_named_twice_is_a_problem(problems, url):
    assert hub(problems, f"{url}, service: hub") == [
        "edge.yaml:3: hub.service: is named in url, write service, or url: redis://USER:PASSWORD@SERVICE"
    ]


@pytest.mark.parametrize("whole", ["service: hub, sentinel: [a, b]", "url: redis://hub, sentinel: [a, b]"])
def test_a_service_with_its_sentinels_is_valid(problems, whole):
    assert hub(problems, whole) == []


def test_tls_of_a_hub_needs_a_rediss_url(problems):
    says_nothing = "edge.yaml:3: hub.tls: says nothing to a hub of %s, write rediss:// there, or leave it out"
    assert hub(problems, "url: REDIS://a, tls: {verify: no}") == [says_nothing % "redis://"]
    assert hub(problems, "tls: {verify: no}") == [says_nothing % "memory://"]
    assert hub(problems, "url: redis+cluster://a, tls: {verify: no}") == [
        says_nothing.replace("rediss", "rediss+cluster") % "redis+cluster://"
    ]
    for right in ("url: Rediss://a, tls: {ca: x}", "url: redis://a, tls: {}", "url: redis://a"):
        assert hub(problems, right) == []
    for otherwise in ("url: '${U}', tls: {ca: x}", "url: [a], tls: {ca: x}", "url: rediss://a, tls: [x]", "tls: x"):
        assert len(hub(problems, otherwise)) == 1
    assert len(hub(problems, "url: rdis://a, tls: {ca: x}")) == 1


USES_OF_FILES = """\
state: var/edge
tables: {dir: /dev/shm/edge}
listen:
  - 0.0.0.0:80
  - address: 0.0.0.0:443
    tls:
      cert: a.pem
      key: a.key
      certificates: [{cert: b.pem, key: b.key}, x]
      client_ca: clients.pem
upstreams:
  api:
    endpoints: [https://a]
    tls: {ca: ca.pem, cert: edge.pem, key: ./certs//edge.key}
routes: [{path: /*, upstream: api}]
usage: {collector: "https://c", tls: {ca: collector.pem}}
hub: {url: "rediss://h", tls: {ca: hub.pem}}
"""


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("var/edge", 1),
        ("/dev/shm/edge", 2),
        ("a.pem", 7),
        ("./a.key", 8),
        ("b.key", 9),
        ("clients.pem", 10),
        ("ca.pem", 14),
        ("certs/x/../edge.key", 14),
        ("collector.pem", 16),
        ("hub.pem", 17),
    ],
)
@pytest.mark.parametrize(("log", "field"), [("%s", "access_log"), ("{file: %s, sample: 1%%}", "access_log.file")])
def test_an_access_log_cannot_be_a_file_with_another_use(problems, file, line, log, field):
    text = USES_OF_FILES.replace(", x]", "]") + f"access_log: {log % file}\n"
    assert problems(text) == [f"edge.yaml:18: {field}: {file} is named already at edge.yaml:{line}, name another file"]


def test_an_access_log_of_its_own_is_valid(problems):
    assert (
        len(problems(USES_OF_FILES + "access_log: var/edge/access.log\n")) == 1
    )  # The only problem is the x among the certificates.
    assert problems(LEAST + "access_log: access.log\n") == []


def test_two_listeners_cannot_share_an_address(problems):
    text = (
        LEAST
        + "listen: [127.0.0.1:80, {address: '[::1]:80'}, '[0::1]:80', 127.0.0.1:0, 127.0.0.1:0]\nadmin: 127.0.0.1:80\n"
    )
    assert problems(text) == [
        "edge.yaml:3: listen.2: is [::1]:80 like edge.yaml:3, listen at another port",
        "edge.yaml:4: admin: is 127.0.0.1:80 like edge.yaml:3, listen at another port",
    ]
    assert problems(LEAST + "listen: localhost:80\nadmin: localhost:80\n") == [
        "edge.yaml:4: admin: is localhost:80 like edge.yaml:3, listen at another port"
    ]
    assert problems(LEAST + "listen: {address: localhost:80}\nadmin: localhost:81\n") == []
    assert problems(
        LEAST + "listen: {address: '[::1]:80', tls: {cert: a, key: b}}\nadmin: {address: '[::1]:80'}\n"
    ) == ["edge.yaml:4: admin: is [::1]:80 like edge.yaml:3, listen at another port"]
    assert problems(LEAST + "listen: [a:80, {address: a:80, tls: {cert: a, key: b}}]\n") == [
        "edge.yaml:3: listen.1: is a:80 like edge.yaml:3, listen at another port"
    ]


@pytest.mark.parametrize(
    ("listen", "admin", "overlap"),
    [
        ("0.0.0.0:80", "127.0.0.1:80", True),
        ("127.0.0.1:80", "0.0.0.0:80", True),
        ("'[::]:80'", "'[::1]:80'", True),
        ("'[::1]:80'", "'[::]:80'", True),
        ("0.0.0.0:80", "'[::]:80'", False),
        ("0.0.0.0:80", "'[::1]:80'", False),
        ("'[::]:80'", "127.0.0.1:80", False),
        ("0.0.0.0:80", "localhost:80", False),
        ("0.0.0.0:80", "127.0.0.1:81", False),
    ],
)
def test_wildcard_address_conflicts_with_ports_of_its_family(problems, listen, admin, overlap):
    one, other = listen.strip("'"), admin.strip("'")
    what = f"edge.yaml:4: admin: is {other}, which overlaps {one} at edge.yaml:3, listen at another port"
    tokens = f"tokens: 'ops:{'0' * 64}'"  # With tokens, admin may listen on any address.
    assert problems(LEAST + f"listen: {listen}\nadmin: {{address: {admin}, {tokens}}}\n") == ([what] if overlap else [])


@pytest.mark.parametrize("hub", ["", "hub: memory://\n", "hub: MEMORY://\n", "hub: {sync: 1s}\n"])
def test_a_directory_needs_a_hub(problems, hub):
    line = 3 + hub.count("\n")
    why = "has no hub to be read from, write hub: redis://HOST:PORT, which edges share"
    assert problems(LEAST + hub + "directory: {from: hub}\n") == [f"edge.yaml:{line}: directory: {why}"]


@pytest.mark.parametrize(
    "hub",
    [
        "hub: redis://[::1]",
        "hub: {url: redis://localhost:1}",
        "hub: {sentinel: [localhost], service: hub}",
        "hub: {sentinel: localhost, url: redis://hub}",
    ],
)
def test_a_directory_with_a_hub_is_valid(problems, hub):
    assert problems(LEAST + f"{hub}\ndirectory: {{from: hub, ttl: 5s}}\n") == []


def test_a_directory_behind_sentinels_of_other_hosts_needs_a_signer(problems):
    why = "names nobody who signs it: whoever can write to the hub could make keys"
    hub = "hub: {sentinel: [10.0.0.5, 10.0.0.6], service: hub}\n"
    (problem,) = problems(LEAST + hub + "directory: {from: hub}\n")
    assert why in problem


def test_a_malformed_directory_is_reported_once(problems):
    assert len(problems(LEAST + "directory: hub\n")) == 1
    assert problems(LEAST + "directory: {ttl: 5s}\n") == ["edge.yaml:3: directory.from: is missing, write from: hub"]
    assert len(problems(LEAST + "hub: [a]\ndirectory: {from: hub}\n")) == 1


def test_flags_may_name_customers_of_the_directory(problems):
    flags = "flags: {f: {customers: [dora], tiers: [t]}}\n"
    unlisted = "edge.yaml:3: flags.f.customers.0: there is no customer dora, define it in customers"
    no_tier = "edge.yaml:3: flags.f.tiers.0: there is no tier t, define it in tiers"
    assert problems(LEAST + flags) == [no_tier, unlisted]
    assert problems(LEAST + flags + "hub: redis://localhost\ndirectory: {from: hub}\n") == [no_tier]


def test_the_buffer_of_an_upstream_fits_the_disk_limit(problems):
    assert upstream(problems, "endpoints: ['http://a'], buffer: 2GiB") == [
        "edge.yaml:2: upstreams.api.buffer: is more than limits.buffered, 1GiB, write as much there, or less here"
    ]
    assert upstream(problems, "endpoints: ['http://a'], buffer: 1GiB") == []
    assert (
        upstream(
            problems, "endpoints: ['http://a'], buffer: 2GiB}}\nlimits: {buffered: 2GiB}\nmeters: {a: {count: requests"
        )
        == []
    )


def test_caps_need_a_reported_cost_meter(problems):
    cost = "meters: {cost: {count: %s}}\n"
    reported = cost % "response_header, header: X-Cost"
    hint = "write meters: {cost: {count: response_header, header: X-Cost}}"
    caps = "tiers: {t: {caps: {session: 5/min}}}\n"
    assert problems(LEAST + reported + caps + "customers: {c: {tier: t, caps: {}}}\n") == []
    without = f"edge.yaml:3: tiers.t.caps: is of the meter cost, which is not there, {hint}"
    assert problems(LEAST + caps) == [without]
    assert problems(LEAST + caps + "meters: {tokens: {count: events}}\n") == [without]
    assert problems(LEAST + (cost % "cost") + caps) == [
        "edge.yaml:4: tiers.t.caps: has a session, for which upstreams must report in the head what a request cost, "
        + hint
    ]
    assert problems(LEAST + (cost % "cost") + "tiers: {t: {caps: {day: 5}}}\n") == []
    assert problems(LEAST + reported + "tiers: {anonymous: {caps: {day: 5}}}\n") == [
        "edge.yaml:4: tiers.anonymous.caps: holds customers, and these are none, leave it out"
    ]
    assert problems(LEAST + "meters: {cost-over-cap: {count: requests}}\n") == [
        "edge.yaml:3: meters.cost-over-cap: is what edges count where an answer costs more than caps allow, "
        "give it another name"
    ]
    own = "tiers: {t: {caps: x}}\ncustomers: {c: {tier: t, caps: {day: 5}}}\n"
    assert len(problems(LEAST + own + "meters: {cost: x}\n")) == 2


@pytest.mark.parametrize(
    ("aggregate", "grows"), [("sum", True), ("max", True), ("unique", True), ("last", False), ("average", False)]
)
def test_a_quota_of_a_value_that_may_fall_has_no_period(problems, aggregate, grows):
    meters = f"meters: {{users: {{count: events, aggregate: {aggregate}}}}}\n"
    tiers = (
        "tiers: {t: {quotas: [{meter: users, included: 5}]}, u: {quotas: [{meter: users, per: day, included: 5}]}}\n"
    )
    lacks = "edge.yaml:4: tiers.t.quotas.0: lacks the time after which it begins anew, write per: month, or per: day"
    needless = "edge.yaml:4: tiers.u.quotas.0.per: users counts what exists, at any time, leave per out"
    assert problems(LEAST + meters + tiers) == [lacks if grows else needless]


def test_key_is_a_dimension_of_every_edge_meter(problems):
    for meter in ("count: requests", "count: requests, when: admitted", "count: bytes_out", "count: total_tokens"):
        assert problems(LEAST + f"meters: {{m: {{{meter}, dimensions: {{key: 50}}}}}}\n") == []
    both = "dimensions: {key: 50, model: {header: X-M, values: 5}}"
    assert problems(LEAST + f"meters: {{m: {{count: requests, {both}}}}}\n") == []
    (problem,) = problems(LEAST + f"meters: {{m: {{count: requests, when: admitted, {both}}}}}\n")
    assert "are known with the answer" in problem
    (problem,) = problems(LEAST + "meters: {m: {count: requests, dimensions: {keys: 50}}}\n")
    assert "lacks the field in which upstreams report it" in problem
    (problem,) = problems(LEAST + "meters: {m: {count: total_tokens, dimensions: {keys: 50}}}\n")
    assert "write model, estimated, service_tier, prompt_size or key" in problem


def test_a_meter_of_refusals_has_no_options_and_no_quota(problems):
    assert problems(LEAST + "meters: {refused: {count: refusals}}\n") == []
    complaints = problems(
        LEAST + "meters: {refused: {count: refusals, when: success, dimensions: {limit: {values: 3}}}}\n"
    )
    assert [line.partition("meters.")[2].partition(":")[0] for line in complaints] == [
        "refused.when",
        "refused.dimensions",
    ]
    quota = "tiers: {t: {quotas: [{meter: refused, per: day, included: 5}]}}\n"
    (bound,) = problems(LEAST + "meters: {refused: {count: refusals}}\n" + quota)
    assert "refused counts what was refused" in bound


def test_person_dimensions_need_a_meter_of_events(problems):
    def complaints(count, header=""):
        return problems(
            LEAST + f"meters: {{m: {{count: {count}, dimensions: {{user: {{values: 9{header}, person: true}}}}}}}}\n"
        )

    assert complaints("events") == []
    assert complaints("requests", ", header: X-User") == [
        "edge.yaml:3: meters.m.dimensions.user.person: is of events, and edges know nobody's pseudonym, "
        "have services report it as events"
    ]
