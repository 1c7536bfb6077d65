"""A probe of one address over a connection of its own: a GET, which passes if the answer is 2xx or 3xx, or a call of
the health service of gRPC (grpc_probe.py).
"""

import asyncio
import os
import socket
import ssl
from collections.abc import Iterable, Mapping
from pathlib import Path

from aiohttp import ClientError
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from edgeproxy.base import log
from edgeproxy.base.client_tls import HTTP2, HTTP11, ClientTls
from edgeproxy.base.http_answer import read_prefix
from edgeproxy.base.http_peer import AnswerBoundError, HttpPeer, open_session
from edgeproxy.base.trust import TlsFilesError, format_tls_error
from edgeproxy.config.edge.upstreams import Endpoint, Upstream
from edgeproxy.config.tls import UpstreamTls
from edgeproxy.edge.proxy.transport.proxy_header import UNKNOWN
from edgeproxy.edge.supervisor.grpc_probe import probe_service
from edgeproxy.edge.supervisor.health import ProbeTarget, ProbeTerms
from edgeproxy.edge.supervisor.upstreams import find_probe_terms

TlsTerms = tuple[UpstreamTls, str, tuple[Path, ...]]
"""TLS towards an upstream, the ALPN name of the protocol in it, and the trusted files."""

PROBE_SECONDS_MAX = 5.0
"""Seconds that a probe may take at most; it never takes longer than the interval of its target."""
PEER = HttpPeer("the health check", PROBE_SECONDS_MAX, 64 << 10, leaves_site=False, reads_prefix=True)
AGENT = "edgeproxy-health"


class Prober:
    """Probes the addresses of upstreams, each on the terms of its target."""

    def __init__(self, upstreams: Mapping[str, Upstream], trusted: tuple[Path, ...] = ()) -> None:
        self._tls: dict[TlsTerms, ClientTls] = {}
        self._users: dict[TlsTerms, str] = {}
        """The name of an upstream that uses each TLS context."""
        self._log = log.get_logger()
        self.follow((upstreams, trusted))

    def follow(self, *configured: tuple[Mapping[str, Upstream], tuple[Path, ...]]) -> None:
        """Load the TLS contexts that probes need and drop all others. Reads files.

        Each configuration has its upstreams, and the files that it trusts.
        """
        self._users = {
            find_tls_terms(terms): name
            for upstreams, trusted in configured
            for name, upstream in upstreams.items()
            if (terms := find_probe_terms(upstream, trusted)) is not None
            and any(endpoint.scheme == "https" for endpoint in upstream.endpoints)
        }
        remaining = {tls: loaded for tls, loaded in self._tls.items() if tls in self._users}
        # In one step: probes go on while this runs in a thread.
        self._tls = remaining | self._load(tls for tls in self._users if tls not in remaining)

    def renew(self) -> None:
        """Load the certificates again. Certificates that cannot be loaded stay unchanged."""
        self._tls |= self._load(self._users)

    def _load(self, settings: Iterable[TlsTerms]) -> dict[TlsTerms, ClientTls]:
        loaded = {}
        for tls in settings:
            try:
                loaded[tls] = ClientTls(*tls)
            except TlsFilesError as error:
                name = self._users[tls]
                self._log.error("certificates for probes cannot be loaded", upstream=name, why=str(error))
        return loaded

    async def __call__(self, target: ProbeTarget) -> str | None:
        """Return why this address is down; None if it is up."""
        endpoint, terms = Endpoint(url=target.url), target.terms
        seconds = min(terms.every, PROBE_SECONDS_MAX)
        tls = self._tls.get(find_tls_terms(terms))
        if endpoint.scheme == "http":
            tls = None
        elif tls is None:
            return "its certificates cannot be loaded"
        if terms.service is None:
            peer = PEER.bound_by_head(terms.head_bytes_max)
            version = terms.proxy_protocol
            opening = b"" if version is None else UNKNOWN[version]
            return await probe_address(endpoint, target.address, terms.path, seconds, tls, terms.host, peer, opening)
        try:
            async with asyncio.timeout(seconds):
                return await probe_service(endpoint, target.address, terms, tls)
        except TimeoutError:
            return f"no answer within {seconds:g} s"
        except OSError as error:
            return describe_failure(error)


def find_tls_terms(terms: ProbeTerms) -> TlsTerms:
    """Return the part of a probe's terms that its TLS context depends on."""
    return terms.tls, HTTP11 if terms.service is None else HTTP2, terms.trusted


class FixedResolver(AbstractResolver):
    """A resolver that returns one address for every host."""

    def __init__(self, address: str) -> None:
        self._address = address

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return the address, whatever the host."""
        version = socket.AF_INET6 if ":" in self._address else socket.AF_INET
        result: ResolveResult = {
            "hostname": host,
            "host": self._address,
            "port": port,
            "family": version,
            "proto": 0,
            "flags": socket.AI_NUMERICHOST,
        }
        return [result]

    async def close(self) -> None:
        """Do nothing: there is nothing to release."""


class ConnectedSocket(socket.socket):
    """A socket with a connection. aiohttp connects every socket that it is given."""

    def connect(self, address: object) -> None:
        """Do nothing: it is connected."""


async def open_socket(address: str, port: int, opening: bytes) -> ConnectedSocket:
    """Connect to an address, and send `opening` before anything else. Raises OSError."""
    loop = asyncio.get_running_loop()
    plain = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    try:
        plain.setblocking(False)
        await loop.sock_connect(plain, (address, port))
        await loop.sock_sendall(plain, opening)
        opened = ConnectedSocket(fileno=plain.detach())
    finally:
        plain.close()
    return opened


async def probe_address(
    endpoint: Endpoint,
    address: str,
    path: str,
    seconds: float,
    tls: ClientTls | None = None,
    host: str | None = None,
    peer: HttpPeer = PEER,
    opening: bytes = b"",
) -> str | None:
    """Return why the endpoint is down at this address; None if it answers with 2xx or 3xx within `seconds`.

    `tls` is for endpoints of https://, with the settings that workers use; `host` replaces the host of the endpoint's
    URL; `peer` has the bounds of the answer; `opening` is sent before anything else.
    """
    try:
        async with asyncio.timeout(seconds):  # Not rounded up to whole seconds, as aiohttp's is.
            opened = await open_socket(address, endpoint.port, opening) if opening else None
            async with (
                open_session(
                    peer,
                    seconds=seconds,
                    auto_decompress=False,
                    resolver=FixedResolver(address),
                    force_close=True,
                    use_dns_cache=False,
                    socket_factory=None if opened is None else lambda _: opened,
                ) as session,
                session.get(
                    URL(endpoint.url + path, encoded=True),
                    headers={"Host": host or endpoint.authority, "User-Agent": AGENT, "Accept": "*/*"},
                    allow_redirects=False,
                    ssl=True if tls is None else tls.context,
                    server_hostname=None if tls is None else tls.server_name,
                ) as answer,
            ):
                await read_prefix(answer.content, peer.body_bytes_max)
                return None if 200 <= answer.status < 400 else f"status {answer.status}"
    except TimeoutError:
        return f"no answer within {seconds:g} s"
    except (OSError, ClientError, ValueError) as error:
        return describe_failure(error)


def describe_failure(failure: Exception) -> str:
    """Describe in a few words why a probe got no answer."""
    if isinstance(failure, AnswerBoundError):
        return str(failure)
    cause = failure.__cause__ or failure  # aiohttp's own errors say less than their causes.
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"its certificate is refused: {format_tls_error(cause)}"
    if isinstance(cause, ssl.SSLError):
        return f"TLS failed: {format_tls_error(cause)}"
    if isinstance(cause, OSError) and cause.errno:
        return os.strerror(cause.errno).lower()
    return f"{type(failure).__name__}: {failure}" if str(failure) else type(failure).__name__
