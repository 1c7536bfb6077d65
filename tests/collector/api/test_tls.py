"""TLS at the collector's listener, with real certificates: trusted peers, and files that are read again."""

import http.client
import signal
import ssl
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from edgeproxy import cli
from loadtest.testbed.authority import Authority
from loadtest.testbed.batch_chains import Chain
from loadtest.testbed.collector import READ, Collector, sha256
from loadtest.testbed.http_client import answer_of
from loadtest.testbed.ports import HOST
from loadtest.testbed.waiting import until
from tests.support.secured import NAME, Secured


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    with closing(Secured(tmp_path_factory.mktemp("secured"))) as made:
        made.start()
        yield made


def test_edge_without_client_certificate_is_refused_despite_its_token(secured: Secured) -> None:
    reply = secured.ship(Chain().next(), secured.context())
    assert reply.status == 403
    assert b"show a certificate" in reply.body


def test_a_certificate_of_another_authority_ends_in_the_handshake(secured: Secured, tmp_path: Path) -> None:
    stranger = Authority(tmp_path, "stranger").issue("edge-1")
    with pytest.raises(OSError, match=r"(?i)unknown.ca|reset|closed|disconnected"):
        secured.ship(Chain().next(), secured.context(stranger))
    expired = secured.authority.issue("edge-2", days=-1.0, age=9.0)
    with pytest.raises(OSError, match=r"(?i)expired|reset|closed|disconnected"):
        secured.ship(Chain().next(), secured.context(expired))


def test_an_edge_believes_no_collector_of_another_name_or_authority(secured: Secured, tmp_path: Path) -> None:
    good = secured.authority.issue("edge-1")
    with pytest.raises(OSError, match="Hostname mismatch"):
        secured.ship(Chain().next(), secured.context(good), "another.test")
    doubting = ssl.create_default_context(cafile=Authority(tmp_path, "other").file)
    with pytest.raises(OSError, match="certificate verify failed"):
        secured.ship(Chain().next(), doubting)


def test_readers_and_health_checks_need_no_certificate_but_their_token(secured: Secured) -> None:
    assert secured.ask("/v1/usage").status == 200
    assert secured.ask("/v1/usage", token="x").status == 401
    assert secured.ask("/healthz").body == b"ok"
    assert 80 * 86400 < secured.told("collector_tls_expiry_seconds") < 91 * 86400
    assert secured.told("collector_ready") == 1
    probe = ["probe", "--admin", f"{HOST}:{secured.port}"]
    assert CliRunner().invoke(cli.app, [*probe, "--tls"]).stdout == "ready\n"
    assert CliRunner().invoke(cli.app, probe).exit_code == 1


def test_a_check_tells_of_a_certificate_that_expires(secured: Secured) -> None:
    expiring = secured.authority.issue(NAME, days=5.5)
    said = {**secured.settings, "tls": {"cert": str(expiring.cert), "key": str(expiring.key)}}
    file = secured.file.with_name("expiring.yaml")
    file.write_text(yaml.safe_dump(said))
    checked = CliRunner().invoke(cli.app, ["check", "-c", str(file)])
    assert checked.exit_code == 0
    assert checked.stderr.startswith(f"warning: the certificate {expiring.cert} expires in 5 days")


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_old_versions_and_plain_http_are_refused(secured: Secured) -> None:
    old = secured.context()
    old.set_ciphers("DEFAULT@SECLEVEL=0")
    old.minimum_version = ssl.TLSVersion.TLSv1
    old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError):
        secured.ask("/healthz", context=old)
    plain = http.client.HTTPConnection(HOST, secured.port, timeout=15)
    with closing(plain):
        plain.request("GET", "/healthz")
        with pytest.raises((OSError, http.client.HTTPException)):
            plain.getresponse()


def test_renewed_certificates_are_used_and_open_connections_go_on(secured: Secured) -> None:
    before = secured.serial()
    kept = http.client.HTTPSConnection(HOST, secured.port, timeout=15, context=secured.context())
    with closing(kept):
        kept.request("GET", "/healthz")
        assert answer_of(kept.getresponse()).status == 200
        secured.shown.replace(secured.authority.issue(NAME, HOST))
        until(lambda: secured.serial() != before, "another certificate is shown")
        kept.request("GET", "/healthz")
        assert answer_of(kept.getresponse()).status == 200
    chain = Chain()
    assert secured.ship(chain.next(), secured.context(secured.authority.issue("edge-1"))).status == 200


def test_sighup_reloads_access_settings_and_ignores_an_invalid_file(tmp_path: Path) -> None:
    with closing(Secured(tmp_path, clients=False)) as collector:
        collector.start()
        assert collector.process is not None
        assert collector.ship(Chain().next(), collector.context()).status == 200
        old = collector.settings["tokens"]
        collector.settings["tokens"] = [{"sha256": sha256("new"), "role": "read"}, *old[:1]]
        collector.settings["tls"]["client_ca"] = str(collector.authority.file)
        collector.settings["trusted_proxies"] = ["192.0.2.0/24"]
        collector.settings["listen"] = f"{HOST}:1"
        collector.write()
        collector.process.send_signal(signal.SIGHUP)
        until(lambda: collector.ask("/v1/usage", token="new").status == 200, "the new token is known")
        assert collector.ask("/v1/usage", token=READ).status == 401
        assert collector.ship(Chain().next(), collector.context()).status == 403
        until(lambda: '"needs_restart": ["listen"]' in collector.output, "the setting that needs a restart is logged")
        assert collector.told("collector_config_ok") == 1
        collector.settings["tokens"] = []
        collector.write()
        collector.process.send_signal(signal.SIGHUP)
        until(lambda: collector.told("collector_config_ok") == 0, "the reload is refused")
        assert collector.ask("/v1/usage", token="new").status == 200
        assert "tokens: is empty" in collector.output
        collector.settings["tokens"] = old
        del collector.settings["tls"]
        collector.write()
        collector.process.send_signal(signal.SIGHUP)
        until(lambda: Collector.ready(collector), "the collector is reached without TLS")
        assert collector.metric("collector_config_ok") == 1
