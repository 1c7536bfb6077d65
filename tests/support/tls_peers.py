"""Servers of TLS that note the first bytes which they could decrypt, and calls of the product that send some."""

import asyncio
import itertools
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, redirect_stderr
from email.message import EmailMessage
from io import StringIO
from pathlib import Path
from typing import Self
from urllib.parse import urlencode, urlsplit

import pytest
import typer
from acme import client
from josepy.jwa import ES256
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from edgeproxy.base.client_tls import ClientTls
from edgeproxy.base.trust import TlsFiles
from edgeproxy.cli import api
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.encryption.aws_kms import AwsKmsKeyService
from edgeproxy.collector.exports.storage import Storage
from edgeproxy.collector.mails.mail import send_message
from edgeproxy.collector.residency import peers
from edgeproxy.config.collector.pages import SignInMail
from edgeproxy.config.collector.residencies import OtherResidency
from edgeproxy.config.edge.upstreams import Endpoint
from edgeproxy.config.edge.usage import Usage
from edgeproxy.config.tls import UpstreamTls
from edgeproxy.config.tracing import Tracing
from edgeproxy.edge.directory.collector_client import CollectorClient
from edgeproxy.edge.supervisor.acme_order import Network, describe_error
from edgeproxy.edge.supervisor.probe import probe_address
from edgeproxy.edge.usage.transport import HttpTransport as BatchTransport
from edgeproxy.hub.redis import Link, Tls
from edgeproxy.probe import fetch
from edgeproxy.regions.beacon.collector import Collector as BeaconCollector
from edgeproxy.tracing.grpc_transport import GrpcTransport
from edgeproxy.tracing.transport import HttpTransport
from edgeproxy.wire.batch import Batch, format_batch
from loadtest.testbed.authority import Pair
from loadtest.testbed.ports import HOST
from tests.e2e.test_hostile_peers import CALLS

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
SSL_REQUEST_BYTES = 8
"""The length of PostgreSQL's request for TLS."""

Use = Callable[[], Awaitable[object]]
Call = Callable[[str], Awaitable[object]]
"""A call of a server at https://HOST:PORT."""


class TlsPeer:
    """The server, from `with` to its end."""

    def __init__(self, pair: Pair, client_ca: Path | None = None) -> None:
        """With `client_ca` clients must have a certificate of that authority."""
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=client_ca)
        self._context.load_cert_chain(pair.cert, pair.key)
        self._context.set_alpn_protocols(["h2", "http/1.1"])
        if client_ca is not None:
            self._context.verify_mode = ssl.CERT_REQUIRED
        self._listening = socket.create_server((HOST, 0))
        self.port: int = self._listening.getsockname()[1]
        self.heard: list[bytes] = []
        """The first bytes of each connection whose client trusted the certificate."""

    def __enter__(self) -> Self:
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        connection.settimeout(10)
        with connection:
            try:
                if connection.recv(1, socket.MSG_PEEK) == b"\0":  # PostgreSQL; a TLS record begins otherwise.
                    connection.recv(SSL_REQUEST_BYTES)
                    connection.sendall(b"S")
                with self._context.wrap_socket(connection, server_side=True) as secured:
                    self._answer(secured)
            except OSError:
                pass

    def _answer(self, secured: ssl.SSLSocket) -> None:
        secured.settimeout(0.3)
        try:
            first = secured.recv(1 << 16)
        except TimeoutError:  # A client of mail waits for a greeting.
            secured.sendall(b"220 mail.test ESMTP\r\n")
            secured.settimeout(10)
            first = secured.recv(1 << 16)
        if first:
            self.heard.append(first)
            secured.sendall(ANSWER)


async def _ready_call(name: str, url: str) -> object:
    return await CALLS[name][0](url, 5.0, lambda: None)


NO_FILES = UpstreamTls()
"""TLS with the site's authorities and no certificate of the client."""


async def check_upstream(url: str, tls: UpstreamTls = NO_FILES) -> object:
    return await probe_address(Endpoint(url=url), HOST, "/", 5.0, ClientTls(tls))


async def export_over_http(url: str, tls: UpstreamTls = NO_FILES) -> object:
    transport = HttpTransport(Tracing(endpoint=url, timeout=5.0, tls=tls))
    try:
        return (await transport.send(ExportTraceServiceRequest())).why
    finally:
        await transport.close()


async def ship_batch(url: str, tls: UpstreamTls = NO_FILES) -> object:
    """Send a batch with the settings that the supervisor passes on."""
    batch = Batch("edge-1", "here", 3, 0, 0, "0" * 64, (("acme", "requests", "v1", 1),))
    transport = BatchTransport(url, total=5.0, tls=TlsFiles.from_settings(tls))
    try:
        return await transport(batch, format_batch(batch))
    finally:
        await transport.close()


async def follow_directory(url: str, tls: UpstreamTls = NO_FILES) -> object:
    directory = CollectorClient(Usage(collector=url, tls=tls))
    try:
        return await directory.get("/head", {})
    finally:
        await directory.close()


async def fetch_best_region(url: str, tls: UpstreamTls = NO_FILES) -> object:
    beacon = BeaconCollector(url, "token", TlsFiles.from_settings(tls), None)
    try:
        return await beacon.fetch_best("192.0.2.0/24", None, 0.0)
    finally:
        await beacon.close()


async def ask_residency(url: str, tls: UpstreamTls = NO_FILES) -> object:
    return (await peers.fetch_status("us", OtherResidency(url=url, ca=tls.ca)))["state"]


async def call_by_command(url: str, tls: UpstreamTls = NO_FILES) -> object:
    """Call the collector as a command does, and return its answer or the printed error."""

    def run() -> object:
        with pytest.MonkeyPatch.context() as patch, redirect_stderr(StringIO()) as printed:
            patch.setenv(api.TOKEN, "token")
            patch.setattr(api, "CONNECT_SECONDS", 0.0)
            try:
                return api.Api(url, tls.ca).call("GET", "/v1/edges")
            except typer.Exit:
                return printed.getvalue()

    return await asyncio.to_thread(run)


async def probe_edge(url: str, tls: UpstreamTls = NO_FILES) -> object:
    request = fetch.create_fetch(None if tls.ca is None else str(tls.ca))
    return (await asyncio.to_thread(request, f"{url}/", {})).status


async def export_by_grpc(url: str, tls: UpstreamTls = NO_FILES) -> object:
    transport = GrpcTransport(Tracing(endpoint=url, protocol="grpc", timeout=5.0, tls=tls))
    try:
        return (await transport.send(ExportTraceServiceRequest())).why
    finally:
        await transport.close()


def build_aws_environment(url: str) -> dict[str, str]:
    """Return the variables of the call of AWS KMS."""
    return {
        "AWS_ENDPOINT_URL_KMS": url,
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


@asynccontextmanager
async def lasting_grpc(url: str, _: pytest.MonkeyPatch) -> AsyncIterator[Use]:
    transport = GrpcTransport(Tracing(endpoint=url, protocol="grpc", timeout=5.0))
    try:
        yield lambda: transport.send(ExportTraceServiceRequest())
    finally:
        await transport.close()


@asynccontextmanager
async def lasting_traces(url: str, _: pytest.MonkeyPatch) -> AsyncIterator[Use]:
    transport = HttpTransport(Tracing(endpoint=url, timeout=5.0))
    try:
        yield lambda: transport.send(ExportTraceServiceRequest())
    finally:
        await transport.close()


@asynccontextmanager
async def lasting_beacon(url: str, _: pytest.MonkeyPatch) -> AsyncIterator[Use]:
    beacon = BeaconCollector(url, "token", TlsFiles(), None)
    networks = itertools.count()
    try:
        yield lambda: beacon.fetch_best(f"192.0.{next(networks)}.0/24", None, 0.0)
    finally:
        await beacon.close()


@asynccontextmanager
async def lasting_kms(url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Use]:
    for name, value in build_aws_environment(url).items():
        monkeypatch.setenv(name, value)
    service = AwsKmsKeyService("arn:aws:kms:eu-central-1:111122223333:key/1")
    yield lambda: service.wrap(b"key")


@asynccontextmanager
async def lasting_database(url: str, _: pytest.MonkeyPatch) -> AsyncIterator[Use]:
    database = Database(f"postgresql://me@{urlsplit(url).netloc}/ledger?sslmode=verify-full")

    async def read() -> None:
        async with database.reading():
            pass

    try:
        yield read
    finally:
        await database.close()


async def open_database(url: str, tls: UpstreamTls = NO_FILES) -> object:
    options = {"sslmode": "verify-full" if tls.verify else "require"}
    options |= {} if tls.ca is None else {"sslrootcert": str(tls.ca)}
    options |= {} if tls.cert is None else {"sslcert": str(tls.cert), "sslkey": str(tls.key)}
    return await Database.connect(f"postgresql://me@{urlsplit(url).netloc}/ledger?{urlencode(options)}")


async def open_hub(url: str, tls: UpstreamTls = NO_FILES) -> object:
    return await Link.open(f"rediss://{urlsplit(url).netloc}/0", Tls.from_settings(tls), deadline=5.0)


async def open_sentinels(url: str, tls: UpstreamTls = NO_FILES) -> object:
    """Ask a Sentinel for the primary of a hub."""
    return await Link.open(f"rediss+sentinel://{urlsplit(url).netloc}/hub/0", Tls.from_settings(tls), deadline=5.0)


async def send_mail(url: str) -> object:
    parts = urlsplit(url)
    server = {"server": f"{parts.hostname}:{parts.port}", "tls": "tls", "sender": "a@example.com"}
    message = EmailMessage()
    message["From"] = message["To"] = "a@example.com"
    return await send_message(SignInMail.model_validate(server), message)


async def wrap_key(url: str) -> object:
    """Encrypt by AWS KMS; the variable of its endpoint is the caller's."""
    return await AwsKmsKeyService("arn:aws:kms:eu-central-1:111122223333:key/1").wrap(b"key")


async def order_certificate(url: str) -> object:
    """Ask an ACME authority for its directory, as the process of an order does."""

    def run() -> object:
        try:
            return client.ClientV2.get_directory(f"{url}/directory", Network(alg=ES256))
        except Exception as error:
            return describe_error(error)

    return await asyncio.to_thread(run)


async def store_file(url: str) -> object:
    environ = {"AWS_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    return await asyncio.to_thread(lambda: Storage("s3://usage/x", environ).get("file"))


HTTP_CALLS: dict[str, Call] = {
    name: (lambda url, name=name: _ready_call(name, url))  # type: ignore[misc]
    for name in CALLS
    if name not in ("health check", "health check over gRPC", "probe")
}
LEAVING: dict[str, Call] = HTTP_CALLS | {
    "traces over gRPC": export_by_grpc,
    "ACME": order_certificate,
    "AWS KMS": wrap_key,
    "object storage": store_file,
    "command": call_by_command,
}
"""Calls that go through the site's proxy."""
STAYING: dict[str, Call] = {
    "upstream": check_upstream,
    "probe": lambda url: _ready_call("probe", url),
    "PostgreSQL": open_database,
    "hub": open_hub,
    "Sentinels": open_sentinels,
    "mail": send_mail,
}
"""Calls that go past it."""
TRUSTING: dict[str, Call] = LEAVING | STAYING
"""All calls over TLS."""
OWN_CALLS: dict[str, Callable[[str, UpstreamTls], Awaitable[object]]] = {
    "upstream": check_upstream,
    "hub": open_hub,
    "Sentinels": open_sentinels,
    "usage": ship_batch,
    "directory": follow_directory,
    "beacon": fetch_best_region,
    "PostgreSQL": open_database,
    "traces": export_over_http,
    "traces over gRPC": export_by_grpc,
    "residency": ask_residency,
    "probe": probe_edge,
    "command": call_by_command,
    "AWS KMS": lambda url, _: wrap_key(url),
}
"""Calls with TLS settings of their own. The authorities of AWS KMS have a variable instead, AWS_CA_BUNDLE."""
PRESENTING = [name for name in OWN_CALLS if name not in ("residency", "probe", "command", "AWS KMS")]
"""Calls with a certificate of their own, if one is given."""
UNVERIFYING = [name for name in PRESENTING if name != "traces over gRPC"]
"""Calls that accept any certificate if the settings say so."""
TRUST_ROWS: dict[str, tuple[str, ...]] = {
    "upstreams and their health checks": ("upstream",),
    "hub, and its Sentinels": ("hub", "Sentinels"),
    "edge to collector: batches, reports, directory": ("usage", "directory"),
    "beacon to collector": ("beacon",),
    "PostgreSQL, with `sslmode=verify-ca` or `verify-full`": ("PostgreSQL",),
    "spans over HTTP and gRPC": ("traces", "traces over gRPC"),
    "sums of other residencies": ("residency",),
    "issuers: metadata, keys, sign-in": ("keys of an issuer",),
    "certificates by ACME": ("ACME",),
    "Stripe": ("Stripe", "meter events"),
    "webhooks, alerts": ("webhook",),
    "mails of pages and of alerts": ("mail",),
    "checks of regions": ("region",),
    "AWS KMS": ("AWS KMS",),
    "object storage (S3)": ("object storage",),
    "ClickHouse": ("ClickHouse",),
    "`probe`": ("probe",),
    "other commands to the collector": ("command",),
}
"""The rows of the table of trust in docs/operations/outgoing-calls.md, and the calls above of each."""
PROXY_ROWS: dict[str, tuple[str, ...]] = {
    "Stripe": ("Stripe", "meter events"),
    "issuers: metadata, keys, sign-in": ("keys of an issuer",),
    "certificates by ACME": ("ACME",),
    "webhooks, alerts over HTTP": ("webhook",),
    "spans over HTTP and gRPC": ("traces", "traces over gRPC"),
    "AWS KMS": ("AWS KMS",),
    "object storage (S3)": ("object storage",),
    "ClickHouse": ("ClickHouse",),
    "edge, beacon and commands to the collector": ("usage", "directory", "beacon", "command"),
    "sums of other residencies, checks of regions": ("residency", "region"),
}
"""The calls through the site's proxy. The rows are on that page too."""
PAST_ROWS: dict[str, tuple[str, ...]] = {
    "upstreams and their health checks": ("upstream",),
    "hub (Redis)": ("hub", "Sentinels"),
    "PostgreSQL": ("PostgreSQL",),
    "mails": ("mail",),
    "`probe`": ("probe",),
    "the command of a key service": (),  # It is a process of the operator, and opens its own connections.
}
"""The calls past the site's proxy. The rows are on that page too."""
LASTING: dict[str, Callable[[str, pytest.MonkeyPatch], AbstractAsyncContextManager[Use]]] = {
    "traces": lasting_traces,
    "beacon": lasting_beacon,
    "traces over gRPC": lasting_grpc,
    "AWS KMS": lasting_kms,
    "PostgreSQL": lasting_database,
}
"""Clients that last as long as their process."""
