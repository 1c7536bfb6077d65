"""The proxy through which calls leave the site."""

import pytest

from edgeproxy.base.outgoing_proxy import find_proxy, set_proxy
from edgeproxy.config import outgoing
from edgeproxy.config.url_secrets import HINT
from tests.config.conftest import refusal


@pytest.mark.parametrize(
    "url", ["http://proxy.example:3128", "https://proxy.example/", "http://me:p%40w@10.0.0.1:1", "http://[::1]:3128"]
)
def test_a_proxy_is_a_url_of_a_host(url):
    assert outgoing.read_proxy_url(url) == url


@pytest.mark.parametrize(
    "url",
    [
        "proxy.example:3128",
        "socks5://a",
        "http://",
        "http://:3128",
        "http://a:0",
        "http://a:65536",
        "http://a:x",
        "http://[a",
        "http://a/path",
        "http://a?query",
        "http://a#fragment",
    ],
)
def test_invalid_proxy_url_is_refused_without_showing_it(url):
    assert refusal(outgoing.read_proxy_url, url) == ("is not the URL of a proxy", outgoing.A_PROXY)


def test_raw_character_in_the_password_of_a_proxy_is_refused():
    assert refusal(outgoing.read_proxy_url, "http://me:p@w@a:1") == (
        "has a user or a password with a raw character",
        f"{outgoing.A_PROXY}: {HINT}",
    )


@pytest.mark.parametrize("text", ["*", "a.example", ".example.com", "10.0.0.0/8", "[::1]:80", "fd00::/8"])
def test_hosts_domains_and_networks_are_asked_past_a_proxy(text):
    assert outgoing.read_exception(text) == text


@pytest.mark.parametrize("text", ["a b", "*.example.com", "a,b", "a" * 256])
def test_invalid_proxy_exception_is_refused(text):
    what, hint = refusal(outgoing.read_exception, text)
    assert what.endswith(" is no host, domain or network")
    assert hint == outgoing.AN_EXCEPTION


@pytest.fixture
def _environment_without_proxy(monkeypatch):
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    yield
    set_proxy(None, ())


@pytest.mark.usefixtures("_environment_without_proxy")
def test_outgoing_calls_use_the_configured_proxy_until_removed(loaded):
    outgoing.use_outgoing(loaded("proxy: {url: 'http://me:hush@proxy.example:3128', past: [.internal.example]}\n"))
    proxy = find_proxy("https://api.example.com")
    assert proxy is not None
    assert proxy.full_url == "http://me:hush@proxy.example:3128"
    assert find_proxy("https://a.internal.example") is None
    outgoing.use_outgoing(loaded(""))
    assert find_proxy("https://api.example.com") is None


@pytest.mark.usefixtures("_environment_without_proxy")
def test_loading_a_file_applies_nothing(loaded):
    assert loaded("proxy: http://proxy.example:3128\n").proxy is not None
    assert find_proxy("https://api.example.com") is None


def test_proxy_url_alone_has_no_exceptions(loaded):
    proxy = loaded("proxy: http://proxy.example:3128\n").proxy
    assert proxy == outgoing.ProxySettings(url="http://proxy.example:3128", past=())
