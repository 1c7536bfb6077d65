"""Settings of an edge's routes and sections: origins, fallback, affinity, spans, the operators' address, ACME."""

from pathlib import Path

import pytest
from pydantic_core import PydanticCustomError

from edgeproxy.config import tracing_faults
from edgeproxy.config.addresses import Address
from edgeproxy.config.edge import references
from edgeproxy.config.edge.admin import GUARD_HINT, Admin
from edgeproxy.config.edge.cors import read_header, read_origin
from edgeproxy.config.edge.fallback import Fallback
from edgeproxy.config.edge.load import dump_settings, restore_settings
from edgeproxy.config.tokens import A_PAIR, AdminToken
from tests.config.conftest import LEAST, Load, Problems


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("*", "*"),
        ("https://App.Example.com", "https://app.example.com"),
        ("https://a.example:443", "https://a.example"),
        ("http://a.example:443", "http://a.example:443"),
        ("http://localhost:3000", "http://localhost:3000"),
        ("http://[::1]:80", "http://[::1]"),
        ("https://*.example.com:8443", "https://*.example.com:8443"),
        ("capacitor://localhost", "capacitor://localhost"),
    ],
)
def test_origin_is_normalized_as_browsers_send_it(written, read):
    assert read_origin(written) == read


@pytest.mark.parametrize(
    ("written", "what", "hint"),
    [
        ("null", "null is the origin of every sandboxed page and every local file", "name the origins of your own"),
        ("https://a.example/", "'https://a.example/' is not an origin", "without a path and a / at its end"),
        ("a.example", "'a.example' is not an origin", "an origin such as https://app.example.com, "
         "https://*.example.com, or *"),
        ("https://*.com", "'https://*.com' lets in every site below com",
         "name the domain too: https://*.example.com"),
    ],
)  # fmt: skip
def test_invalid_or_too_wide_cors_origin_is_refused(problems, written, what, hint):
    assert problems(LEAST + f"cors: {{origins: ['{written}']}}") == [f"edge.yaml:3: cors.origins.0: {what}, {hint}"]


@pytest.mark.parametrize("written", ["https://a b", "https://*", "https://a@b", "https://*.*.example.com", "//a.b", ""])
def test_invalid_origin_is_refused(written):
    with pytest.raises(PydanticCustomError):
        read_origin(written)


def test_any_field_is_a_star():
    assert (read_header("*"), read_header("X-Own")) == ("*", "X-Own")


def test_cookies_are_not_for_any_page(problems):
    text = LEAST + "cors: {origins: ['*', 'https://a.example'], credentials: yes}"
    assert problems(text) == [
        "edge.yaml:3: cors.origins: * is any origin already, leave it out, or the others",
        "edge.yaml:3: cors.credentials: would show every page what its visitors may see, name the origins instead of *",
    ]
    assert problems(LEAST + "cors: {origins: ['*'], credentials: no}") == []
    assert len(problems(LEAST + "cors: {origins: ['*'], credentials: perhaps}")) == 1
    assert len(problems(LEAST + "cors: {origins: '*', credentials: yes}")) == 1
    assert len(problems(LEAST + "cors: [a]")) == 1


def test_the_routes_of_a_path_say_the_same(problems):
    route = "{path: /a, upstream: api, methods: [%s]%s}"
    text = LEAST.splitlines()[0] + "\nroutes:\n  - " + route % ("GET", ", cors: off") + "\n  - " + route
    assert problems(text % ("PUT", "")) == [
        "edge.yaml:4: routes.1: has another cors than the route of its path at edge.yaml:3, write the same in both"
    ]
    assert problems(text % ("PUT", ", cors: off")) == []


def test_route_sets_its_own_cors_or_none(loaded):
    routes = "routes: [{path: /a, upstream: api, cors: {origins: ['*']}}, {path: /b, upstream: api, cors: off}]"
    one, other = loaded(LEAST.splitlines()[0] + "\n" + routes, alone=True).routes
    assert one.cors.origins == ("*",)
    assert other.cors == "off"


# ---- `fallback`


TEXT = (
    "region: test\nupstreams: {api: {endpoints: [http://h]}, other: {endpoints: [http://o]}}\n"
    "routes: [{path: /v1/*, upstream: api, fallback: %s}]\n"
)


@pytest.mark.parametrize("text", ["other", "{upstream: other, statuses: [429, 5xx], after: 1s, buffer: 1MiB}"])
def test_a_fallback_is_another_upstream(problems, text):
    assert problems(TEXT % text) == []


def test_a_class_of_statuses_is_all_of_them():
    assert Fallback.model_validate({"upstream": "other"}).list_statuses() == {429, *range(500, 600)}


@pytest.mark.parametrize(
    ("text", "path", "what"),
    [
        (TEXT % "othr", "", "there is no upstream othr, did you mean other"),
        (TEXT % "{upstream: otr}", ".upstream", "there is no upstream otr"),
        (TEXT % "api", "", "leads to api, which has failed then"),
        (TEXT % "{upstream: api}", "", "leads to api, which has failed then"),
        (TEXT % "{upstream: other, statuses: [200]}", ".statuses.0", "is not the status of an error"),
        (TEXT % "{upstream: other, statuses: [6xx]}", ".statuses.0", "is not the status of an error"),
        (TEXT % "{upstream: other, statuses: []}", ".statuses", "is empty"),
        (TEXT % "{upstream: other, buffer: 2GiB}", ".buffer", "is more than limits.buffered"),
        (TEXT % "{upstream: other, rewrite: {strip: /v2}}", ".rewrite.strip", "/v1/* does not begin with it"),
        (
            TEXT % "{upstream: other, rewrite: {response: {remove: [Server]}}}",
            ".rewrite.response",
            "cannot be said of one upstream alone",
        ),
        (TEXT.replace("upstream: api", "respond: {}") % "other", "", "is for where an upstream fails"),
    ],
)
def test_problem_of_a_fallback_names_its_field(problems, text, path, what):
    (problem,) = problems(text)
    assert f"routes.0.fallback{path}: " in problem
    assert what in problem


# ---- affinity


UPSTREAM = "upstreams: {api: {endpoints: [http://127.0.0.1:9001], balance: %s}}\n" + LEAST.splitlines()[1] + "\n"
SECRET = "0123456789abcdef"


@pytest.mark.parametrize(
    ("balance", "hashed", "cookie"),
    [
        ("{hash: address}", "address", None),
        ("{hash: customer, cookie: none}", "customer", None),
        (f"{{hash: header  X-Room, secret: {SECRET}}}", "header X-Room", None),
        (f"{{hash: cookie SID, secret: {SECRET}}}", "cookie SID", None),
        (f"{{cookie: edge, secret: {SECRET}}}", None, "edge"),
    ],
)
def test_balances(loaded, balance, hashed, cookie):
    settings = loaded(UPSTREAM % balance, alone=True).upstreams["api"].balance
    assert (settings.hash, settings.cookie) == (hashed, cookie)


A_SECRET = 'balance: would let clients choose their endpoint, write secret: "${AFFINITY_SECRET}"'


@pytest.mark.parametrize(
    ("balance", "problem"),
    [
        ("{}", "balance: has neither hash nor cookie, write one of them, or leave balance out"),
        ("{hash: address, cookie: a}", "balance: has both hash and cookie, write one of them, or leave balance out"),
        ("{cookie: edge}", A_SECRET),
        ("{hash: header X-Room}", A_SECRET),
        ("{hash: cookie SID, secret: ''}", A_SECRET),
        ("{cookie: edge, secret: short}", "secret: has 5 characters, fewer than 16, openssl rand -hex 16 makes one"),
        ("{hash: query x}", "hash: 'query x' is no value of a request, address, customer, header NAME or cookie NAME"),
    ],
)
def test_balances_that_cannot_be_meant(problems, balance, problem):
    (found,) = problems(UPSTREAM % balance)
    assert found.endswith(problem), found


def test_a_balance_of_another_shape_is_left_to_the_model(problems):
    assert len(problems(UPSTREAM % "hash")) == 1


# ---- `tracing`


LOCAL = "http://127.0.0.1:4318"


@pytest.fixture
def reads_files():
    return False


def said(problems, text):
    """Return the problems of these settings, which are in line 3."""
    return [problem.removeprefix("edge.yaml:3: tracing") for problem in problems(f"{LEAST}tracing: {{{text}}}\n")]


@pytest.mark.parametrize(
    "text",
    [
        f"endpoint: '{LOCAL}'",
        "endpoint: 'https://otlp.example.com', headers: {authorization: Basic abc}, tls: {ca: ca.pem}",
        "endpoint: 'https://otlp.example.com', protocol: grpc, tls: {cert: a, key: b, server_name: x}",
        f"endpoint: '{LOCAL}', sample: 12.5%, parent: ignore, parent_rate: 5/s, resource_attributes: {{a.b: x}}",
        f"endpoint: '{LOCAL}', customer: id, client_address: true, service_name: edge, timeout: 1s",
    ],
)
def test_valid_setting_passes(problems, text):
    assert said(problems, text) == []


@pytest.mark.parametrize(
    ("endpoint", "read"),
    [
        (LOCAL, LOCAL),
        (LOCAL + "/", LOCAL),
        (LOCAL + "/v1/traces", LOCAL),
        ("https://otlp.example.com/api/v1/otlp/", "https://otlp.example.com:443/api/v1/otlp"),
        ("https://otlp.example.com/api/v1/traces", "https://otlp.example.com:443/api"),
    ],
)
def test_an_endpoint_is_the_base_of_the_receiver(loaded, endpoint, read):
    assert loaded(f"tracing: {{endpoint: '{endpoint}'}}\n").tracing.endpoint == read


@pytest.mark.parametrize(
    ("endpoint", "exposed"),
    [(LOCAL, False), ("http://localhost:1", False), ("http://10.0.0.5:1", True), ("https://10.0.0.5:1", False)],
)
def test_tracing_endpoint_counts_as_exposed_without_tls(loaded, endpoint, exposed):
    assert loaded(f"tracing: {{endpoint: '{endpoint}'}}\n").tracing.is_exposed is exposed


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("endpoint: 'ftp://h'", ".endpoint: 'ftp://h'"),
        ("endpoint: 'http://[h'", ".endpoint: 'http://[h' is not a URL"),
        ("endpoint: 'http://h/?a=b'", ".endpoint: 'http://h/?a=b' has more than a path"),
        ("endpoint: 'http://h/a b'", ".endpoint: 'http://h/a b' has more than a path"),
        (f"endpoint: '{LOCAL}', headers: {{a: \"b\\r\\nplanted\"}}", ".headers.a: has characters that no field has"),
        (f"endpoint: '{LOCAL}', headers: {{'a b': c}}", ".headers.'a b': 'a b' is not the name of a field"),
        (f"endpoint: '{LOCAL}', service_name: ''", ".service_name: '' is no value of an attribute"),
        (f"endpoint: '{LOCAL}', resource_attributes: {{a: '{'x' * 201}'}}", ".resource_attributes.a"),
        (f"endpoint: '{LOCAL}/x', protocol: grpc", ".endpoint: has a path, which gRPC has not"),
        (f"endpoint: '{LOCAL}', tls: {{ca: x}}", ".tls: says nothing to a receiver of http://"),
        ("endpoint: 'https://h', protocol: grpc, tls: {verify: false}", ".tls.verify: cannot be false with gRPC"),
        ("endpoint: 'https://h', tls: {cert: x}", ".tls.cert: stands without its key"),
        ("sample: 1%", ".endpoint: is missing"),
    ],
)
def test_invalid_tracing_setting_is_refused_without_its_secret(problems, text, what):
    found = said(problems, text)
    assert len(found) == 1, found
    assert found[0].startswith(what)
    assert "planted" not in found[0]


def test_settings_of_another_shape_are_left_to_the_models(problems):
    assert problems(LEAST + "tracing: [x]\n") != []
    assert len(said(problems, "endpoint: 'https://h', tls: [x]")) == 1
    assert len(said(problems, "endpoint: 'https://h', protocol: grpc, tls: {verify: [x]}")) == 1


def test_packages_that_are_missing_are_named(problems, monkeypatch):
    assert tracing_faults.is_installed("edgeproxy.no_such_module") is False
    assert tracing_faults.is_installed("no_such_package.at_all") is False
    for extra, protocol in (("tracing", "http/protobuf"), ("tracing-grpc", "grpc")):
        monkeypatch.setitem(tracing_faults.PACKAGES, extra, ("no_such_package",))
        assert said(problems, f"endpoint: '{LOCAL}', protocol: {protocol}") == [
            f": needs packages that are not installed, pip install 'edgeproxy[{extra}]'"
        ]


# ---- `admin`


DIGESTS = ("a" * 64, "b" * 64)
OPS = AdminToken(name="ops", sha256=DIGESTS[:1])


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("unix", Admin()),
        ("127.0.0.1:9090", Admin(address=Address("127.0.0.1", 9090))),
        ("{address: 127.0.0.1:9090}", Admin(address=Address("127.0.0.1", 9090))),
        (
            f"{{address: 0.0.0.0:9090, tokens: 'ops:{DIGESTS[0]}', hosts: edge.internal 10.0.0.1}}",
            Admin(address=Address("0.0.0.0", 9090), tokens=(OPS,), hosts=("edge.internal", "10.0.0.1")),
        ),
        (
            f"{{address: 'edge:9090', tokens: [{{name: ops, sha256: [{', '.join(DIGESTS)}], expires: 1970-01-02}}]}}",
            Admin(
                address=Address("edge", 9090), tokens=(AdminToken(name="ops", sha256=DIGESTS, expires="1970-01-02"),)
            ),
        ),
    ],
)
def test_admin_setting_accepts_several_forms(loaded: Load, written: str, meant: Admin) -> None:
    settings = loaded(f"admin: {written}\n")
    assert settings.admin == meant
    assert [token.label for token in settings.admin.tokens] == [token.name for token in meant.tokens]
    message, _ = restore_settings(dump_settings(settings))
    assert message.admin == Admin(), "workers need not know who may ask"


@pytest.mark.parametrize(
    ("written", "reported"),
    [
        ("0.0.0.0:9090", f"is 0.0.0.0:9090, which is not of this host alone, and has no tokens, {GUARD_HINT}"),
        (
            "edge.internal:9090",
            f"is edge.internal:9090, which is not of this host alone, and has no tokens, {GUARD_HINT}",
        ),
        (
            "{hosts: [edge]}",
            "has no address, and its socket asks for no tokens, write address: HOST:PORT beside them",
        ),
        ("http://127.0.0.1:9090", "'http://127.0.0.1:9090' is a URL, unix, HOST:PORT such as 127.0.0.1:9090"),
    ],
)
def test_invalid_admin_setting_is_refused(problems: Problems, written: str, reported: str) -> None:
    (problem,) = problems(LEAST + f"admin: {written}\n")
    assert problem.startswith(f"edge.yaml:3: admin: {reported}")


def test_tokens_have_names_and_are_there_once(problems: Problems) -> None:
    assert problems(LEAST + f"admin: {{address: '0.0.0.0:9', tokens: '{DIGESTS[0]}'}}\n") == [
        f"edge.yaml:3: admin.tokens: has a token without a name, {A_PAIR}"
    ]
    twice = f"{{name: a, sha256: {DIGESTS[0]}}}"
    assert problems(LEAST + f"admin: {{address: '0.0.0.0:9', tokens: [{twice}, {twice}]}}\n") == [
        "edge.yaml:3: admin.tokens.1.sha256: is the token that is defined already at edge.yaml:3, "
        "leave one of them out",
        "edge.yaml:3: admin.tokens.1.name: is the name of the token at edge.yaml:3, name each token once",
    ]


# ---- `acme`


PLAIN = "listen:\n- 0.0.0.0:80\n"
TERMS = "terms_accepted: true"


def list_problems(problems, acme, *, more="", listen=PLAIN):
    """Return the problems of these settings of `acme`, without their lines."""
    text = f"{LEAST}{listen}- {{address: '0.0.0.0:443', tls: {{acme: {{{acme}}}{more}}}}}\n"
    return [problem.partition(" ")[2] for problem in problems(text)]


def test_names_make_the_file_of_a_certificate(loaded):
    def file(acme):
        text = f"listen: {{address: '0.0.0.0:443', tls: {{acme: {{{acme}, {TERMS}}}}}}}\n"
        (listener,) = loaded(text).listen
        (pair,) = listener.tls.list_pairs(Path("state"))
        assert pair.cert == pair.key
        return pair.cert

    two = file("domains: [API.example.com., www.example.com]")
    assert two.parent == Path("state/acme")
    assert two.name.startswith("api.example.com-")
    assert file("domains: [api.example.com, www.example.com], email: ops@example.com") == two
    others = ("domains: api.example.com", "domains: [api.example.com, www.example.com], directory: 'https://ca.test/a'")
    assert len({two, *map(file, others)}) == 3


@pytest.mark.parametrize(
    ("acme", "what"),
    [
        (f"domains: ['*.example.com'], {TERMS}", "needs a challenge over DNS"),
        (f"domains: [10.0.0.1], {TERMS}", "is an IP address"),
        (f"domains: ['[::1]'], {TERMS}", "is an IP address"),
        (f"domains: [a_b!], {TERMS}", "is not a host name"),
        (f"domains: [], {TERMS}", "domains"),
        (f"domains: [a.test, A.test], {TERMS}", "is named already at"),
        (f"domains: {{a: b}}, {TERMS}", "domains"),
        (f"domains: a.test, email: 'a b', {TERMS}", "is not a mail address"),
        (f"domains: a.test, directory: 'http://ca.test/', {TERMS}", "is not the URL"),
        (f"domains: a.test, directory: 'ftp://localhost/', {TERMS}", "is not the URL"),
        (f"domains: a.test, directory: 'https://[::1/', {TERMS}", "is not the URL"),
        (f"domains: a.test, directory: 'https://user@ca.test/', {TERMS}", "is not the URL"),
        ("domains: a.test, terms_accepted: false", "an authority issues nothing without it"),
        ("domains: a.test", "terms_accepted"),
    ],
)
def test_settings_that_are_refused(problems, acme, what):
    (problem,) = list_problems(problems, acme)
    assert what in problem


def test_files_beside_it_are_refused(problems):
    acme = f"domains: a.test, {TERMS}"
    assert list_problems(problems, acme) == list_problems(problems, acme, listen="listen:\n") == []
    for more in (", cert: a.pem, key: a.key", ", certificates: [{cert: a.pem, key: a.key}]"):
        faults = list_problems(problems, acme, more=more)
        assert faults
        assert all("stands beside acme" in fault for fault in faults)


def test_listener_that_can_answer_is_required(problems):
    asking = f"domains: a.test, {TERMS}}}}}, authorize: path"
    text = f"{LEAST}trusted_proxies: [10.0.0.1]\nlisten: {{address: '0.0.0.0:443', tls: {{acme: {{{asking}}}\n"
    (problem,) = problems(text)
    assert "has no listener that can answer a challenge" in problem


def test_missing_packages_are_named(problems, monkeypatch):
    monkeypatch.setattr(references, "is_installed", lambda name: False)
    (problem,) = list_problems(problems, f"domains: a.test, {TERMS}")
    assert problem.endswith("pip install 'edgeproxy[acme]'")
