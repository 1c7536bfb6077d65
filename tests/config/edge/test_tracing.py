"""Where spans go, and what of their receiver cannot be."""

import pytest

from edgeproxy.config import tracing_faults
from tests.config.conftest import LEAST

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
