"""Settings without a file."""

from pathlib import Path

import pytest

from edgeproxy.config.addresses import Address
from edgeproxy.config.edge.listeners import Listener
from edgeproxy.config.edge.load import dump_settings, restore_settings
from edgeproxy.config.edge.quick import load_quick
from edgeproxy.config.edge.upstreams import Upstream
from edgeproxy.config.problems import ConfigError
from edgeproxy.config.tls import UpstreamTls


def quick(to="http://127.0.0.1:9001", listen="127.0.0.1:8080", admin=None, rate=None):
    return load_quick(to, listen=listen, admin=admin, rate=rate, state=Path("state"))


def test_quick_settings_route_all_requests_to_one_upstream():
    settings = quick()
    assert settings.listen == (Listener(address=Address("127.0.0.1", 8080)),)
    assert (settings.admin.address, settings.region, settings.tiers, settings.keys) == (None, "local", {}, ())
    (route,) = settings.routes
    assert (route.path, route.auth, route.host, route.methods) == ("/*", "none", None, None)
    assert settings.upstreams[route.upstream].endpoints[0].url == "http://127.0.0.1:9001"
    assert settings.state == Path("state")
    restored, people = restore_settings(dump_settings(settings))
    assert (restored, len(people)) == (settings, 0)


def test_https_upstream_verifies_its_certificate():
    upstream = quick(to="https://api.example.com").upstreams["upstream"]
    assert upstream.endpoints[0].url == "https://api.example.com:443"
    assert upstream.tls == UpstreamTls(ca=None, cert=None, key=None, server_name=None, verify=True)


@pytest.mark.parametrize(
    ("url", "host"),
    [("https://api.example.com", "upstream"), ("https://10.0.0.5", "pass"), ("http://api.example.com", "pass")],
)
def test_quick_upstream_is_sent_its_own_host_name(url, host):
    assert quick(to=url).upstreams["upstream"].sent_host == host


def test_a_host_that_is_written_counts():
    api = Upstream.model_validate({"endpoints": ["https://api.example.com", "http://10.0.0.5"], "host": "pass"})
    assert (api.sent_host, api.model_copy(update={"host": "a.test"}).sent_host) == ("pass", "a.test")
    assert api.model_copy(update={"host": None}).sent_host == "upstream"


def test_a_rate_holds_each_address():
    settings = quick(rate="100/s", admin="127.0.0.1:9090")
    (limit,) = settings.tiers["anonymous"].limits
    assert (limit.name, limit.count, limit.window) == ("anonymous", 100, 1.0)
    assert settings.admin.address == Address("127.0.0.1", 9090)
    assert settings.sha256 != quick().sha256


def test_all_options_that_are_wrong_are_named():
    with pytest.raises(ConfigError) as caught:
        quick(to="x", listen="y", admin="z", rate="many")
    assert str(caught.value).splitlines() == [
        "--listen: 'y' is not an address with a port, HOST:PORT such as 127.0.0.1:8080 or [::1]:8080",
        "--admin: 'z' is not an address with a port, HOST:PORT such as 127.0.0.1:8080 or [::1]:8080",
        "--rate: 'many' is not a rate, N/UNIT such as 60/min, 200/s or 100/10s",
        "--to: 'x' is not an http or https URL, http://HOST:PORT such as http://10.0.0.5:9001, or https://HOST:PORT",
    ]
