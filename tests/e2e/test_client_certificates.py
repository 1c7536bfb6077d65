"""Customers by certificate: a real edge under TLS, and what must not pass for a customer's certificate."""

import http.client
import json
import ssl
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from edgeproxy.collector.directory import hub_push
from edgeproxy.config.certificate_names import CERTIFICATE, compute_certificate_digest
from edgeproxy.config.edge.load import load_customers
from loadtest.testbed.authority import Authority, Pair
from loadtest.testbed.customers import TIERS, UNLIMITED, key_line, key_of
from loadtest.testbed.edge import Edge
from loadtest.testbed.ports import HOST, Ports
from loadtest.testbed.redis import SERVER, Redis
from loadtest.testbed.upstream import Upstream
from loadtest.testbed.waiting import until

REFUSED = 0
"""In place of a status: the connection ended in the handshake."""


class Certified(NamedTuple):
    edge: Edge
    port: int
    server: Authority
    clients: Authority

    def context(self, pair: Pair | None) -> ssl.SSLContext:
        created = ssl.create_default_context(cafile=self.server.file)
        if pair is not None:
            created.load_cert_chain(*pair)
        return created

    def connection(self, pair: Pair | None) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(HOST, self.port, timeout=15, context=self.context(pair))

    def asks(self, pair: Pair | None, path: str = "/cert", **fields: str) -> int:
        with closing(self.connection(pair)) as connection:
            try:
                connection.request("GET", path, headers={name.replace("_", "-"): said for name, said in fields.items()})
                return connection.getresponse().status
            except (ssl.SSLError, ConnectionError):
                return REFUSED


@pytest.fixture
def certified(tmp_path: Path, upstream: Upstream) -> Iterator[Certified]:
    """Not started yet."""
    server, clients = Authority(tmp_path, "server"), Authority(tmp_path, "clients")
    shown = server.issue(HOST)
    with closing(Ports(1)) as ports, closing(Edge(tmp_path / "edge", upstream.port)) as edge:
        (port,) = ports.numbers
        tls = {"cert": str(shown.cert), "key": str(shown.key), "client_ca": str(clients.file)}
        edge.settings["listen"] = [edge.settings["listen"], {"address": f"{HOST}:{port}", "tls": tls}]
        edge.settings["auth"] = {"query": "key"}
        edge.settings["routes"] = [
            {"path": "/cert", "upstream": "api", "auth": "certificate"},
            {"path": "/both", "upstream": "api", "auth": ["key", "certificate"]},
            {"path": "/write", "upstream": "api", "auth": "certificate", "scopes": ["write"]},
            {"path": "/open", "upstream": "api", "auth": "none"},
            {"path": "/*", "upstream": "api"},
        ]
        edge.settings["customers"] |= {"acme": {"tier": "own", "limits": [{"rate": "1000/min", "scope": "key"}]}}
        edge.settings["keys"] += [{"certificate": "acme", "customer": "acme", "scopes": ["read"]}]
        yield Certified(edge, port, server, clients)


def subject(*attributes: tuple[x509.ObjectIdentifier, str]) -> x509.Name:
    return x509.Name([x509.NameAttribute(kind, value) for kind, value in attributes])


def test_only_a_valid_certificate_names_its_customer(certified: Certified, tmp_path: Path) -> None:
    edge, asks, issue = certified.edge, certified.asks, certified.clients.issue
    edge.start()
    acme, nobody = issue(common="acme"), issue(common="nobody")
    for pair, path, fields, status in (
        (acme, "/cert", {}, 200),
        (acme, "/both", {}, 200),
        (nobody, "/both", {"X_API_Key": key_of(UNLIMITED)}, 200),
        (acme, "/both", {"X_API_Key": "unknown"}, 401),
        (acme, "/cert", {"X_API_Key": key_of(UNLIMITED)}, 401),
        (acme, "/other", {}, 401),
        (acme, "/write", {}, 403),
        (acme, "/open", {}, 200),
        (nobody, "/open", {}, 200),
        (nobody, "/cert", {}, 401),
        (None, "/cert", {}, REFUSED),
    ):
        assert asks(pair, path, **fields) == status, (path, fields, status)
    assert edge.usage()["acme"] == 2, "counted as the customer"
    assert edge.limit("acme")["used"] == 2, "and held as a key is"
    common, organisation = NameOID.COMMON_NAME, NameOID.ORGANIZATION_NAME
    strangers = Authority(tmp_path, "strangers")
    for what, pair in {
        "another authority": strangers.issue(common="acme"),
        "expired": issue(common="acme", age=10, days=-1),
        "not yet": issue(common="acme", age=-1, days=10),
    }.items():
        assert asks(pair) == REFUSED, what
    for what, pair in {
        "the name as an organisation": issue(subject=subject((organisation, "acme"))),
        "beside another common name": issue(subject=subject((organisation, "acme"), (common, "evil"))),
        "two common names": issue(subject=subject((common, "acme"), (common, "evil"))),
        "two common names, turned": issue(subject=subject((common, "evil"), (common, "acme"))),
        "as a host's name": issue("acme", common="evil"),
        "only as a host's name": issue("acme"),
        "a zero byte": issue(common="acme\0.evil"),
        "a zero byte before": issue(common="\0acme"),
        "case": issue(common="ACME"),
        "a letter that looks alike": issue(common="\u0430cme"),
        "wide letters": issue(common="\uff41cme"),
        "a space": issue(common="acme "),
        "an attribute within": issue(common="evil,CN=acme"),
    }.items():
        for fields in (
            {},
            {"X_Client_Cert": "acme", "X_Forwarded_Client_Cert": 'Subject="CN=acme"', "X_SSL_CN": "acme"},
        ):
            assert asks(pair, **fields) == 401, what
    # Nothing that is sent as a key stands for a certificate, over TLS or not.
    for secret in (CERTIFICATE + b"acme", compute_certificate_digest("acme"), b"acme"):
        for path in ("/both", "/other"):
            assert edge.ask(f"{path}?key={quote(secret)}").status == 401
    assert edge.ask("/cert", fields={"X-Client-Cert": "acme"}).status == 401, (
        "a certificate field without TLS is ignored"
    )


def test_open_connection_follows_changes_to_certificate_settings(certified: Certified) -> None:
    edge = certified.edge
    edge.start()
    pair = certified.clients.issue("acme", common="other")
    with closing(certified.connection(pair)) as connection:

        def asks() -> int:
            connection.request("GET", "/cert")
            answer = connection.getresponse()
            answer.read()
            return answer.status

        assert asks() == 401
        edge.reload(auth={"certificate": "DNS"})
        until(lambda: asks() == 200, "another name of it counts")
        customers = edge.settings["customers"]
        paused = {**customers["acme"], "paused": {"why": "unpaid", "status": 402}}
        edge.reload(customers={**customers, "acme": paused})
        until(lambda: asks() == 402, "the customer is paused")
        edge.reload(customers=customers, trusted_proxies=[HOST])
        until(lambda: asks() == 401, "a trusted proxy is not for whom it asks")
        edge.reload(trusted_proxies=[], keys=[key_line(UNLIMITED)])
        assert asks() == 401


def test_a_connection_that_outlives_its_certificate_is_nobodys(certified: Certified) -> None:
    edge = certified.edge
    edge.start()
    pair = certified.clients.issue(common="acme", days=4 / 86400)
    with closing(certified.connection(pair)) as connection:

        def asks() -> int:
            connection.request("GET", "/cert")
            answer = connection.getresponse()
            answer.read()
            return answer.status

        assert asks() == 200
        until(lambda: asks() == 401, "the certificate has expired")


@pytest.mark.skipif(SERVER is None, reason="there is no redis-server on this machine")
def test_the_directory_knows_certificates_as_it_knows_keys(certified: Certified, tmp_path: Path) -> None:
    redis, file, edge = Redis(tmp_path), tmp_path / "people.yaml", certified.edge
    dave = certified.clients.issue(common="dave")

    def pushes(*keys: dict[str, Any], **dave: Any) -> None:
        customers = {"dave": {"tier": "own", **dave}}
        file.write_text(json.dumps({"hub": redis.url, "tiers": TIERS, "customers": customers, "keys": keys}))
        hub_push.run_push(load_customers(file, {}), hub_push.PushOptions(force=True))

    def each(status: int, what: str, asks: Callable[[Pair], int] = certified.asks) -> None:
        until(lambda: {asks(dave) for _ in range(6)} == {status}, what)

    key = {"certificate": "dave", "customer": "dave"}
    try:
        pushes(key)
        edge.start(hub=redis.url, directory={"from": "hub"})
        each(200, "the directory has the name")
        assert certified.asks(certified.clients.issue(common="eve")) == 401
        assert edge.ask(f"/both?key={quote(CERTIFICATE + b'dave')}").status == 401
        pushes(key, paused={"why": "unpaid", "status": 402})
        each(402, "the customer is paused")
        pushes(key)
        each(200, "and served again")
        pushes(key_line("dave"))
        each(401, "the certificate is taken away")
    finally:
        redis.kill()
