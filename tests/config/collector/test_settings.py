"""collector.yaml: loaded and checked as edge.yaml is."""

from pathlib import Path

import pytest

from edgeproxy.config import file_kinds, tokens
from edgeproxy.config.addresses import Address
from edgeproxy.config.collector import load as collector_load
from edgeproxy.config.collector import operators, references
from edgeproxy.config.collector import settings as collector_settings
from edgeproxy.config.collector.database_url import A_DATABASE, OPTIONS, read_database
from edgeproxy.config.collector.listeners import GROUPS, Tls
from edgeproxy.config.explain import EXAMPLES
from edgeproxy.config.part import Part
from edgeproxy.config.problems import ConfigError
from edgeproxy.config.units import A_MOMENT
from loadtest.testbed.authority import Authority
from tests.config.conftest import LEAST, refusal, write

A, B = "a" * 64, "b" * 64
TOKENS = f"tokens: [{{sha256: {A}, role: edge}}]\n"
"""The shortest configuration that serves."""
EXAMPLE = Path(__file__).parents[3] / "config" / "collector.yaml"
A_TLS = "tls: {cert: certs/collector.pem, key: certs/collector.key}, or leave it out"


@pytest.fixture
def reported(folder):
    """`said(text, files)` returns the problems of a collector.yaml with this text, one line each."""

    def reported_of(text, files=None):
        write(folder, {"collector.yaml": text, **(files or {})})
        try:
            collector_load.load_collector(Path("collector.yaml"), {})
        except ConfigError as error:
            return str(error).splitlines()
        return []

    return reported_of


def test_the_least_has_defaults(folder):
    write(folder, {"collector.yaml": TOKENS})
    settings = collector_load.load_collector(Path("collector.yaml"), {})
    (listener,) = settings.listen
    assert (listener.address, listener.groups) == (Address("127.0.0.1", 9100), GROUPS)
    assert settings.database == "sqlite:///var/collector/ledger.db"
    assert [*settings.meters] == ["requests"]
    assert (settings.tiers, settings.customers, settings.keys, settings.flags) == ({}, {}, (), {})
    assert len(settings.sha256) == 64


def test_the_example_passes_with_an_empty_environment():
    settings = file_kinds.check_file(EXAMPLE, {})
    assert isinstance(settings, collector_settings.CollectorSettings)
    assert [(token.role, token.customer) for token in settings.tokens] == [
        ("edge", None), ("beacon", None), ("read", None), ("service", None), (None, "demo-pro"),
    ]  # fmt: skip
    assert (settings.customers, settings.keys) == ({}, ()), "customers and keys are in the database"


def test_tokens_of_several_files_are_joined(folder):
    write(folder, {"collector.yaml": TOKENS + "include: [more.yaml]\n", "more.yaml": TOKENS.replace(A, B)})
    settings = collector_load.load_collector(Path("collector.yaml"), {})
    assert [token.sha256 for token in settings.tokens] == [(A,), (B,)]


def test_check_recognizes_a_collector_file_by_its_own_fields(folder):
    for text in (TOKENS, "database: sqlite:///x\n" + TOKENS):
        write(folder, {"x.yaml": text})
        assert isinstance(file_kinds.check_file(Path("x.yaml"), {}), collector_settings.CollectorSettings)
    write(folder, {"x.yaml": "billing: {}\n"})
    with pytest.raises(ConfigError, match="tokens: is missing"):
        file_kinds.check_file(Path("x.yaml"), {})


def test_check_knows_an_edge_by_its_upstreams(folder):
    write(folder, {"x.yaml": LEAST + TOKENS})
    with pytest.raises(ConfigError, match=r"x\.yaml:3: tokens: unknown field, "):
        file_kinds.check_file(Path("x.yaml"), {})


def test_an_edge_is_no_collector(reported):
    result = reported(LEAST)
    assert [line.split(": ")[1:3] for line in result] == [
        ["tokens", 'is missing, write tokens'], ["upstreams", "unknown field, leave it out"],
        ["routes", "unknown field, leave it out"],
    ]  # fmt: skip


@pytest.mark.parametrize("privacy", ["", "privacy: {}\n", "privacy: {pseudonyms: false}\n", "privacy: 1\n"])
def test_a_residency_is_for_customers_with_pseudonyms(reported, privacy):
    said = reported(f"{TOKENS}residency: eu\n{privacy}")
    assert any("is left by the names of its customers" in line for line in said)
    assert reported(f"{TOKENS}residency: eu\nprivacy: {{pseudonyms: true}}\n") == []


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:///ledger.db",
        "sqlite:////var/lib/edgeproxy/ledger.db",
        "postgresql://me:secret@db.internal:5432/ledger",
        "postgresql://me@[::1]/ledger?sslmode=verify-full",
        "postgresql://me@db/ledger?sslmode=verify-full&sslrootcert=/ca.pem&sslcert=/me.pem&sslkey=/me.key",
        "postgresql://me@db/ledger?pooler=transaction&connections=10",
        "postgresql://me:p%40ss%2Fw%3A@db/ledger",
        "postgresql://me:p+a&s=s;w,o@db/led%40ger",
    ],
)
def test_valid_database_url_passes(reported, url):
    assert reported(f"{TOKENS}database: '{url}'\n") == []


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("sqlite://ledger.db", "'sqlite://ledger.db' is not a database"),
        ("sqlite:///", "'sqlite:///' names no file"),
        ("sqlite:///a/", "'sqlite:///a/' names no file"),
        ("sqlite:///a?x=1", "'sqlite:///a?x=1' names no file"),
        ("sqlite:///a%0A", "'sqlite:///a%0A' names no file"),
        ("postgres://me:secret@a/b", "'postgres://…@a/b' is not a database"),
        ("ledger.db", "'ledger.db' is not a database"),
        ("postgresql://a:x/b", "'postgresql://a:x/b' is not a URL"),
        ("postgresql://me:secret@a", "'postgresql://…@a' has no host, or no name of a database"),
        ("postgresql:///b", "'postgresql:///b' has no host, or no name of a database"),
        ("postgresql://a:0/b", "'postgresql://a:0/b' has no host, or no name of a database"),
        ("postgresql://a/b#c", "has a #"),
    ],
)
def test_invalid_database_url_is_refused(reported, url, problem):
    assert reported(f"{TOKENS}database: '{url}'\n") == [f"collector.yaml:2: database: {problem}, {A_DATABASE}"]


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("sslmode=on", "sslmode"),
        ("sslmode=require&sslmode=disable", "sslmode"),
        ("ssl=require", "ssl"),
        ("x", "x"),
        ("pooler=session", "pooler"),
        ("connections=9", "connections"),
        ("connections=²", "connections"),
        ("sslmode=verify-full&sslrootcert=", "sslrootcert"),
    ],
)
def test_database_url_with_an_invalid_option_is_refused(reported, query, name):
    hint = f"after a ? there may be {OPTIONS}"
    assert reported(f"{TOKENS}database: 'postgresql://a/b?{query}'\n") == [
        f"collector.yaml:2: database: has '{name}', {hint}"
    ]


@pytest.mark.parametrize(
    ("query", "problem", "hint"),
    [
        ("sslrootcert=/ca.pem", "has sslrootcert without sslmode=require or more", "write sslmode=verify-full"),
        (
            "sslmode=prefer&sslcert=/me.pem&sslkey=/me.key",
            "has sslcert without sslmode=require or more",
            "write sslmode=verify-full",
        ),
        ("sslmode=require&sslcert=/me.pem", "has one of sslcert and sslkey", "write both, or none"),
        ("sslmode=verify-full&sslkey=/me.key", "has one of sslcert and sslkey", "write both, or none"),
    ],
)
def test_files_of_a_database_need_tls_and_each_certificate_its_key(query, problem, hint):
    assert refusal(read_database, f"postgresql://a/b?{query}") == (problem, hint)


@pytest.mark.parametrize(
    ("token", "problem"),
    [
        ("{role: edge}", "0.sha256: is missing, write sha256: and the SHA-256 of the token in hex"),
        ("{sha256: secret, role: edge}", f"0.sha256: has 6 characters that are not a SHA-256, {tokens.A_DIGEST}"),
        (f"{{sha256: {A}}}", f"0: has neither a role nor a customer, {references.A_ROLE}"),
        (f"{{sha256: {A}, role: read, customer: acme}}", f"0: has a role and a customer, {references.A_ROLE}"),
        (f"{{sha256: {A}, role: writer}}",
         f"0.role: 'writer' is not known here, write {' or '.join(references.ROLES)}"),
        (f"{{sha256: {A}, role: read, edge: e}}",
         "0.edge: binds those who ship usage, write it beside role: edge, or leave it out"),
        (f"{{sha256: {A}, customer: acme, region: r}}",
         "0.region: binds those who ship usage, write it beside role: edge, or leave it out"),
        (f"{{sha256: {A}, role: edge}}, {{sha256: {A.upper()}, role: read}}",
         "1.sha256: is the token that is defined already at collector.yaml:1, leave one of them out"),
        (f"{{name: t, sha256: {A}, role: edge}}, {{name: t, sha256: {B}, role: read}}",
         "1.name: is the name of the token at collector.yaml:1, name each token once"),
        (f"{{sha256: [{A}, {B}], role: edge}}",
         "0.sha256: has several secrets, and the token no name, write name: what edges are bound to"),
        ("{sha256: [], role: edge}", f"0.sha256: is empty, {tokens.A_DIGEST}"),
        (f"{{sha256: {A}, role: edge, expires: soon}}", "0.expires: 'soon' is not a date, " + A_MOMENT),
    ],
)  # fmt: skip
def test_invalid_token_is_refused(reported, token, problem):
    assert reported(f"tokens: [{token}]\n") == [f"collector.yaml:1: tokens.{problem}"]


def test_a_token_without_a_name_is_reported_by_the_beginning_of_its_hash():
    tokens = [
        collector_settings.Token(sha256=[A], role="edge"),
        collector_settings.Token(name="berlin", sha256=[A], role="edge"),
    ]
    assert [token.label for token in tokens] == [f"token-{A[:8]}", "berlin"]


def test_there_must_be_a_token(reported):
    hint = 'write tokens: [{sha256: "<64 hex digits>", role: edge}]'
    assert reported("listen: 127.0.0.1:1\n") == [f"collector.yaml:1: tokens: is missing, {hint}"]
    assert reported("tokens: []\n") == ["collector.yaml:1: tokens: is empty, write at least one"]


def test_a_token_may_be_bound(reported):
    assert reported(f"tokens: [{{sha256: {A}, role: edge, edge: edge-1, region: eu-west}}]\n") == []


def test_collector_refuses_unknown_and_edge_settings(reported):
    text = TOKENS + "billing: {mode: off}\nhub: memory://\ntiers: {t: {caps: 4}}\ncustomers: {a: {tier: x}}\n"
    result = reported(text)
    assert result[0] == "collector.yaml:2: billing.plans: is missing, write plans: config/plans.yaml"
    assert result[1].startswith("collector.yaml:3: hub: unknown field, ")
    assert result[2].startswith("collector.yaml:4: tiers.t.caps: is not a mapping, write caps: {request: 50000, ")
    assert result[3] == "collector.yaml:5: customers.a.tier: there is no tier x, known here: t"
    assert len(result) == 4


@pytest.mark.parametrize(
    ("written", "retained"),
    [
        ("{}", (400, None, 100)),
        ("{minutes: 31day, hours: 800day, batches: forever}", (31, 800, None)),
        ("{minutes: forever, batches: 2 day}", (None, None, 2)),
    ],
)
def test_retention_is_parsed_and_round_trips(folder, written, retained):
    write(folder, {"collector.yaml": f"{TOKENS}retention: {written}\n"})
    result = collector_load.load_collector(Path("collector.yaml"), {}).retention
    in_days = tuple(seconds and seconds / 86400 for seconds in (result.minutes, result.hours, result.batches))
    assert in_days == retained
    assert collector_settings.Retention.model_validate(result.model_dump()) == result


OF_DAYS = "is out of range, forever, or whole days from 2day to 36500day"


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ("{minutes: 1day}", f".minutes: '1day' {OF_DAYS}"),
        ("{minutes: 2.5day, hours: 9day}", f".minutes: '2.5day' {OF_DAYS}"),
        ("{batches: 40000day}", f".batches: '40000day' {OF_DAYS}"),
        ("{hours: 48h}", ".hours: is shorter than minutes, keep hours as long or longer"),
        ("{hours: [1]}", ".hours: is not a single value, forever, or whole days from 2day to 36500day"),
        ("{hours: 399day}", ".hours: is shorter than minutes, keep hours as long or longer"),
        ("{minutes: forever, hours: 500day}", ".hours: is shorter than minutes, keep hours as long or longer"),
        (
            "7day",
            ": is not a mapping, its fields are batches, deleted, hours, invoices, minutes, traffic_hours, "
            "traffic_minutes, webhooks",
        ),
    ],
)
def test_invalid_retention_is_reported(reported, written, problem):
    assert reported(f"{TOKENS}retention: {written}\n") == [f"collector.yaml:2: retention{problem}"]


def test_each_required_field_has_an_example():
    parts = [part for part in vars(collector_settings).values() if isinstance(part, type) and issubclass(part, Part)]
    needed = {name for part in parts for name, field in part.model_fields.items() if field.is_required()}
    assert needed - set(EXAMPLES) <= {"name"}


def test_tls_loads_certificate_key_and_client_ca(folder):
    authority = Authority(folder)
    pair = authority.issue("collector.test")
    tls = f"tls: {{cert: {pair.cert}, key: {pair.key}, client_ca: {authority.file}}}\n"
    write(folder, {"collector.yaml": TOKENS + tls})
    settings = collector_load.load_collector(Path("collector.yaml"), {})
    assert settings.tls == Tls(cert=pair.cert, key=pair.key, client_ca=authority.file)
    write(folder, {"collector.yaml": TOKENS})
    assert collector_load.load_collector(Path("collector.yaml"), {}).tls is None


@pytest.mark.parametrize(
    ("written", "problems"),
    [
        ("{cert: a.pem}", [".key: is missing, write key: certs/edge.key"]),
        ("true", [f": is not a mapping, write {A_TLS}"]),
        ("{cert: a.pem, key: a.key, client_ca: none.pem}",
         [".cert: a.pem cannot be read: No such file or directory, name a file that can be read",
          ".key: a.key cannot be read: No such file or directory, name a file that can be read",
          ".client_ca: none.pem cannot be read: No such file or directory, name a file that can be read"]),
    ],
)  # fmt: skip
def test_tls_that_cannot_be_used_is_reported_with_its_place(reported, written, problems):
    assert reported(f"{TOKENS}tls: {written}\n") == [f"collector.yaml:2: tls{problem}" for problem in problems]


OPERATORS = "operators: {{issuer: {issuer}, audience: {audience}, roles: {{admin: [ops]}}}}\n"


@pytest.mark.parametrize(
    ("issuer", "audience", "reported"),
    [
        ("https://id.test/tenant", "edgeproxy", None),
        ("http://127.0.0.1:8080", "edgeproxy", None),
        ("http://id.test", "edgeproxy", "issuer: 'http://id.test' is reached in the clear, write https://"),
        ("id.test", "edgeproxy", f"issuer: 'id.test' is not the URL of an issuer, {operators.AN_ISSUER}"),
        ("'https://[x'", "edgeproxy", f"issuer: 'https://[x' is not a URL, {operators.AN_ISSUER}"),
        (
            "https://id.test?x",
            "edgeproxy",
            f"issuer: 'https://id.test?x' is not the URL of an issuer, {operators.AN_ISSUER}",
        ),
        ("https://id.test", "' '", "audience: is empty, one text"),
    ],
)
def test_invalid_operators_issuer_or_audience_is_refused(folder, issuer, audience, reported):
    token = "tokens: [{sha256: " + "0" * 64 + ", role: read}]\n"
    (folder / "collector.yaml").write_text(token + OPERATORS.format(issuer=issuer, audience=audience))
    if reported is None:
        settings = collector_load.load_collector(folder / "collector.yaml", {})
        assert settings.operators.issuer == issuer
        assert settings.operators.algorithms == ("RS256", "ES256")
        return
    with pytest.raises(ConfigError) as caught:
        collector_load.load_collector(folder / "collector.yaml", {})
    assert str(caught.value).partition(": operators.")[2] == reported


@pytest.mark.parametrize("algorithm", ["none", "HS256", "RS1"])
def test_tokens_of_operators_are_signed_by_a_private_key(folder, algorithm):
    text = f"operators: {{issuer: https://id.test, audience: a, roles: {{}}, algorithms: [{algorithm}]}}\n"
    (folder / "collector.yaml").write_text("tokens: [{sha256: " + "0" * 64 + ", role: read}]\n" + text)
    with pytest.raises(ConfigError, match="is not known here"):
        collector_load.load_collector(folder / "collector.yaml", {})


def test_sensitive_token_needs_a_name(folder):
    text = "tokens: [{sha256: " + "0" * 64 + ", role: admin, sensitive: true}]\n"
    (folder / "collector.yaml").write_text(text)
    with pytest.raises(ConfigError, match="needs the token's name"):
        collector_load.load_collector(folder / "collector.yaml", {})


@pytest.mark.parametrize(
    ("other", "problem"),
    [
        ("us: {url: 'http://us.test:1'}", "residencies.us.url: is reached in the clear"),
        ("us: {url: [1]}", "residencies.us.url: is not"),
        ("eu: {url: 'https://eu.test:1'}", "residencies.eu: is the residency of this collector"),
    ],
)
def test_unreachable_residency_setting_is_reported_with_its_line(reported, other, problem):
    (line,) = reported(f"{TOKENS}residency: eu\nprivacy: {{pseudonyms: true}}\nresidencies: {{{other}}}\n")
    assert line.startswith(f"collector.yaml:4: {problem}")


@pytest.mark.parametrize(
    ("listen", "problem"),
    [
        ("{address: '127.0.0.1:1', serve: [admin]}", "listen.serve.0: 'admin' is not known here, write edges or api"),
        ("{address: '127.0.0.1:1', serve: []}", "listen.serve: is empty"),
        ("{address: '127.0.0.1:1', serve: [api]}", "listen: serves no edges, and there are tokens of edges or beacons"),
        ("['127.0.0.1:1', '127.0.0.1:1']", "listen.1: is 127.0.0.1:1 like"),
        ("{address: '127.0.0.1:1', allow: [any]}", "listen.allow.0: 'any' is not an address"),
        ("{address: '127.0.0.1:1', serve: [edges], url: 'https://a.b'}", "listen.url: is for pages"),
        ("{address: '127.0.0.1:1', url: 'http://a.b'}", "listen.url: is reached in the clear"),
        ("{address: '127.0.0.1:1', tls: off, behind_tls: maybe}", "listen.behind_tls: 'maybe'"),
        ("0.0.0.0:9100", "listen: is reached by other hosts in clear text"),
        ("{address: '[::]:1', serve: [pages, edges]}", "listen.address: is reached by other hosts in clear text"),
        ("['127.0.0.1:1', '[::1]:1', 'localhost:1', 10.0.0.5:1]", "listen.3: is reached by other hosts in clear text"),
        ("{address: '10.0.0.5:1', allow: [10.0.0.0/8]}", "listen.address: is reached by other hosts in clear text"),
    ],
)
def test_a_listener_that_cannot_be_meant_is_reported_with_its_place(reported, listen, problem):
    (line,) = reported(f"{TOKENS}listen: {listen}\n")
    assert line.startswith(f"collector.yaml:2: {problem}")


def test_a_listener_in_clear_text_is_for_this_host_or_behind_a_proxy_with_tls(reported):
    for listen in (
        "127.0.0.9:1",
        "{address: '0.0.0.0:1', behind_tls: true}",
        "{address: '10.0.0.5:1', tls: off, behind_tls: yes}",
    ):
        assert reported(f"{TOKENS}listen: {listen}\n") == []


def test_configured_pages_need_a_listener_that_serves_them(reported):
    inner = "{address: '127.0.0.1:1', serve: [edges, api, customers, metrics]}"
    text = f"{TOKENS}listen: [{inner}]\npages: {{}}\n"
    assert reported(text) == [
        "collector.yaml:2: listen: serves no console or portal or status, and there are pages, "
        "write console or portal or status in the serve of a listener"
    ]
    for also in (
        "'127.0.0.1:2'",
        "{address: '127.0.0.1:2', serve: [pages]}",
        "{address: '127.0.0.1:2', serve: status}",
    ):
        assert [line for line in reported(text.replace(inner, f"{inner}, {also}")) if "serves no" in line] == []
    sold = f"{TOKENS}listen: {inner}\nbilling: {{mode: shadow, plans: plans.yaml, stripe: {{key: key}}}}\n"
    files = {"key": "sk_test_x", "plans.yaml": "plans: {basic@1: {fee: '9'}}\n"}
    (line,) = reported(sold, files)
    assert line.startswith("collector.yaml:2: listen: serves no webhooks, and payments are known by them")
    assert reported(sold.replace("metrics]", "metrics, webhooks]"), files) == []


def test_listener_serves_all_or_some_pages_with_its_own_tls(folder):
    authority = Authority(folder)
    pair, other = authority.issue("collector.test"), authority.issue("inner.test")
    own = f"{{cert: {other.cert}, key: {other.key}}}"
    listen = "[{address: '127.0.0.1:1', serve: [pages, edges]}, {address: '127.0.0.1:2', serve: [console], tls: off}, "
    listen += f"{{address: '127.0.0.1:3', tls: {own}, allow: [10.0.0.0/8]}}]"
    write(folder, {"collector.yaml": f"{TOKENS}tls: {{cert: {pair.cert}, key: {pair.key}}}\nlisten: {listen}\n"})
    settings = collector_load.load_collector(Path("collector.yaml"), {})
    assert [listener.groups for listener in settings.listen] == [
        {"console", "portal", "status", "edges"}, {"console"}, GROUPS,
    ]  # fmt: skip
    shown = [listener.resolve_tls(settings.tls) for listener in settings.listen]
    assert [tls and tls.cert for tls in shown] == [pair.cert, None, other.cert]
    write(folder, {"collector.yaml": Path("collector.yaml").read_text().replace("tls: off", "behind_tls: true")})
    with pytest.raises(ConfigError, match="behind_tls: is for listeners without TLS"):
        collector_load.load_collector(Path("collector.yaml"), {})
