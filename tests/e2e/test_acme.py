"""Certificates by ACME, from an authority that checks challenges at the edge."""

import json
import os
import socket
import ssl
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

pytest.importorskip("acme", reason="there is no acme on this machine")

from loadtest.testbed.edge import Edge, total
from loadtest.testbed.http_client import ask
from loadtest.testbed.ports import HOST, Ports
from loadtest.testbed.upstream import Upstream
from loadtest.testbed.waiting import until
from tests.support.acme_authority import AcmeAuthority, AcmeRefusalError

NAMES = ["api.test", "www.test"]


@dataclass(frozen=True)
class Site:
    """An edge that asks an authority for the certificate of its listener at `port`."""

    edge: Edge
    port: int
    authority: AcmeAuthority

    def shown(self) -> x509.Certificate:
        """Return the certificate that clients get."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with (
            socket.create_connection((HOST, self.port), timeout=10) as plain,
            context.wrap_socket(plain, server_hostname=NAMES[0]) as tls,
        ):
            certificate = tls.getpeercert(binary_form=True)
        assert certificate is not None
        return x509.load_der_x509_certificate(certificate)

    def serial_issued(self, number: int = -1) -> int:
        """Return the serial number of an issued certificate, the last one by default."""
        pem = [order["pem"] for order in self.authority.orders if order["pem"]][number]
        return x509.load_pem_x509_certificate(pem.encode()).serial_number

    def start(self) -> None:
        """Start the edge."""
        acme = {
            "domains": NAMES,
            "email": "ops@example.com",
            "directory": f"{self.authority.url}/directory",
            "terms_accepted": True,
        }
        listen = [f"{HOST}:{self.edge.port}", {"address": f"{HOST}:{self.port}", "tls": {"acme": acme}}]
        routes = [{"name": "all", "path": "/*", "upstream": "api", "auth": "none"}]
        self.edge.start(listen=listen, routes=routes, trust={"files": [str(self.authority.file)]})

    def until_issued(self, count: int = 1) -> None:
        """Wait until clients get the certificate of this number."""
        until(lambda: sum(bool(order["pem"]) for order in self.authority.orders) >= count, "the certificate is issued")
        until(
            lambda: {self.shown().serial_number for _ in range(6)} == {self.serial_issued()},
            "the edge shows the certificate",
        )

    @property
    def files(self) -> dict[str, Path]:
        """The files of certificates and accounts."""
        return {file.name: file for file in Path(self.edge.settings["state"], "acme").iterdir()}

    def failures(self) -> list[dict[str, Any]]:
        """Return the log lines about failures."""
        lines = [line for line in self.edge.output.splitlines() if "could not be requested or renewed" in line]
        return [json.loads(line) for line in lines]


@pytest.fixture
def site(tmp_path: Path, upstream: Upstream) -> Iterator[Site]:
    with (
        closing(Ports(1)) as ports,
        closing(Edge(tmp_path / "edge", upstream.port)) as edge,
        closing(AcmeAuthority(tmp_path, edge.port, ports.numbers[0])) as authority,
    ):
        yield Site(edge, ports.numbers[0], authority)


def test_first_certificate_over_http_survives_a_restart(site: Site) -> None:
    path = "/.well-known/acme-challenge/"
    foreign: list[bytes] = []
    site.authority.on_check = lambda: foreign.append(ask(site.edge.port, f"{path}foreign").body)
    site.start()
    site.until_issued()
    assert site.authority.checked == ["http-01"] * 2
    assert site.shown().not_valid_after_utc > datetime.now(UTC) + timedelta(days=80)
    assert {oct(file.stat().st_mode & 0o777) for file in site.files.values()} == {"0o600"}
    assert len(site.files) == 2, site.files  # The certificate with its key, and the account.
    # Tokens that are not pending, or not any more, go to the route.
    served = ask(site.edge.port, "/other").body
    over = ask(site.edge.port, path + site.authority.orders[0]["tokens"][0]).body
    assert [*foreign, over] == [served] * 3
    site.edge.end()
    site.start()
    assert site.shown().serial_number == site.serial_issued()
    file = next(file for name, file in site.files.items() if name.startswith("api.test"))
    os.utime(file, (0, 0))
    site.authority.suggested, site.authority.knows_as_replaced = datetime.now(UTC), True
    site.edge.end()
    site.start()
    site.until_issued(2)
    # An order names the certificate that it replaces. If the authority refuses this, the next order omits the name.
    assert site.authority.replaces == [None, site.authority.renewals[0], None]
    assert len(site.authority.accounts) == 1


def test_first_certificate_is_issued_by_a_handshake_challenge(site: Site) -> None:
    site.authority.kinds = ["dns-01", "tls-alpn-01"]
    site.start()
    site.until_issued()
    assert site.authority.checked == ["tls-alpn-01"] * 2
    until(lambda: total(site.edge.metrics(), "edge_connections", side="client") == 0, "no connection stays")


def test_refused_renewal_keeps_the_certificate_and_waits(site: Site) -> None:
    site.authority.life, site.authority.age = timedelta(seconds=9), timedelta(seconds=5)
    site.start()
    site.until_issued()
    first = site.serial_issued()
    site.authority.refusal = AcmeRefusalError("rateLimited", 429, "too many certificates", Retry_After="3600")
    until(site.failures, "the refusal is logged")
    (failure,) = site.failures()
    assert "rateLimited: too many certificates" in failure["why"]
    assert 3590 < failure["retry_in"] <= 3600
    assert site.shown().serial_number == first
    assert total(site.edge.metrics(), "edge_acme_failures") == 1
    site.authority.refusal = None
    site.edge.end()
    site.start()
    assert total(site.edge.metrics(), "edge_acme_failures") == 1  # It waits as before the restart.
    assert len(site.authority.orders) == 1
    site.edge.end()
    next(file for name, file in site.files.items() if name.endswith(".retry")).unlink()
    site.start()
    site.until_issued(2)


def test_unreachable_acme_authority_does_not_delay_the_start(site: Site) -> None:
    site.authority.close()
    site.start()
    assert site.shown().issuer == x509.Name([])
    until(site.failures, "the failure is logged")
    assert site.failures()[0]["retry_in"] >= 144
