"""Servers of TLS that note the first bytes which they could decrypt, and calls of the product that send some."""

import asyncio
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from email.message import EmailMessage
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import pytest
from acme import client
from josepy.jwa import ES256
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from edgeproxy.base.client_tls import ClientTls
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.encryption.aws_kms import AwsKmsKeyService
from edgeproxy.collector.exports.storage import Storage
from edgeproxy.collector.mails.mail import send_message
from edgeproxy.config.collector.pages import SignInMail
from edgeproxy.config.edge.upstreams import Endpoint
from edgeproxy.config.tls import UpstreamTls
from edgeproxy.config.tracing import Tracing
from edgeproxy.edge.supervisor.acme_order import Network, describe_error
from edgeproxy.edge.supervisor.probe import probe_address
from edgeproxy.hub.redis import Link, Tls
from edgeproxy.tracing.grpc_transport import GrpcTransport
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


def build_tls(own: Pair | None) -> UpstreamTls:
    return UpstreamTls() if own is None else UpstreamTls(cert=own.cert, key=own.key)


async def check_upstream(url: str, own: Pair | None = None) -> object:
    return await probe_address(Endpoint(url=url), HOST, "/", 5.0, ClientTls(build_tls(own)))


async def export_by_grpc(url: str, own: Pair | None = None) -> object:
    transport = GrpcTransport(Tracing(endpoint=url, protocol="grpc", timeout=5.0, tls=build_tls(own)))
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


async def open_database(url: str, own: Pair | None = None) -> object:
    files = "" if own is None else f"&sslcert={own.cert}&sslkey={own.key}"
    return await Database.connect(f"postgresql://me@{urlsplit(url).netloc}/ledger?sslmode=verify-full{files}")


async def open_hub(url: str, own: Pair | None = None) -> object:
    tls = Tls() if own is None else Tls(cert=own.cert, key=own.key)
    return await Link.open(f"rediss://{urlsplit(url).netloc}/0", tls, deadline=5.0)


async def open_sentinels(url: str) -> object:
    """Ask a Sentinel for the primary of a hub."""
    return await Link.open(f"rediss+sentinel://{urlsplit(url).netloc}/hub/0", Tls(), deadline=5.0)


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
}
"""Calls that go through the site's proxy."""
TRUSTING: dict[str, Call] = LEAVING | {
    "upstream": check_upstream,
    "probe": lambda url: _ready_call("probe", url),
    "PostgreSQL": open_database,
    "hub": open_hub,
    "Sentinels": open_sentinels,
    "mail": send_mail,
}
"""All calls over TLS."""
PRESENTING: dict[str, Callable[[str, Pair | None], Awaitable[object]]] = {
    "upstream": check_upstream,
    "traces over gRPC": export_by_grpc,
    "PostgreSQL": open_database,
    "hub": open_hub,
}
"""Calls with a certificate of their own, if one is given."""
LASTING: dict[str, Callable[[str, pytest.MonkeyPatch], AbstractAsyncContextManager[Use]]] = {
    "traces over gRPC": lasting_grpc,
    "AWS KMS": lasting_kms,
    "PostgreSQL": lasting_database,
}
"""Clients that last as long as their process."""
