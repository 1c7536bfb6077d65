"""The collector's listeners: sockets for its lifetime, and TLS that is rebuilt when certificate files change.

Open connections keep their TLS context. Invalid files change nothing.
"""

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

from aiohttp import web

from edgeproxy.base import log
from edgeproxy.base.addresses import parse_ip
from edgeproxy.base.tasks import run_in_thread
from edgeproxy.base.web_listener import Peer, WebListener
from edgeproxy.config.addresses import Network
from edgeproxy.config.certificates import (
    CertificateDetails,
    InvalidCertificateError,
    describe_expiry,
    read_authorities,
    read_certificate,
)
from edgeproxy.config.collector.listeners import CollectorListener, Tls
from edgeproxy.config.file_signatures import compute_file_signature

CHECK_SECONDS = 2.0
"""Seconds between two checks of the files."""
REMINDER_SECONDS = 86400.0
"""Seconds between two log lines about an expiring certificate."""
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""TLS 1.2 ciphers with forward secrecy and authenticated encryption (RFC 9325 section 4.2). All of TLS 1.3 has both."""


class TlsState(NamedTuple):
    """The TLS context of a listener, and the files that it was built from."""

    tls: Tls | None
    context: ssl.SSLContext | None
    facts: CertificateDetails | None
    """The details of the certificate; None without TLS."""
    signs: list[object]


class Listener:
    """One of the collector's addresses: a bound socket with its application."""

    def __init__(self, settings: CollectorListener, listening: socket.socket, connections: WebListener) -> None:
        """`connections` belong to this listener only. Filling up one listener does not affect others."""
        self.settings = settings
        self.listening = listening
        self.connections = connections
        self.tls_state = TlsState(None, None, None, [])
        self._last_error = ""
        """The last logged error of changed files; empty if they are valid."""
        self._reminded = -REMINDER_SECONDS
        self._log = log.get_logger()

    @property
    def asks_for_certificates(self) -> bool:
        """True if edges must show a certificate here."""
        return self.tls_state.tls is not None and self.tls_state.tls.client_ca is not None

    def accept(self, runner: web.AppRunner, trusted: Callable[[], Sequence[Network]]) -> None:
        """Accept connections from now on: clients in `allow`, and proxies that are `trusted` at that time."""

        def admits(peer: Peer) -> bool:
            return self.allows(peer.address, trusted())

        self.connections.accept(runner, self.listening, lambda: self.tls_state.context, admits)

    def allows(self, address: str, also: Sequence[Network] = ()) -> bool:
        """Return True if `allow` or the networks `also` include the client's address."""
        allow = self.settings.allow
        if not allow:
            return True
        client = parse_ip(address)
        return client is not None and any(client in network for network in (*allow, *also))

    async def prepare(self, default: Tls | None) -> TlsState:
        """Build the TLS state without using it; `default` is the collector's TLS. Raises InvalidCertificateError."""
        tls = self.settings.resolve_tls(default)
        signs = list_file_signs(tls)  # Taken first, so that the next check sees later changes.
        made = None if tls is None else await run_in_thread("read certificates", lambda: build_tls_context(tls))
        context, facts = (None, None) if made is None else made
        return TlsState(tls, context, facts, signs)

    async def look(self) -> None:
        """Use changed files. Log invalid files once, and expiring certificates at intervals."""
        tls = self.tls_state.tls
        if tls is None:
            return
        why = ""
        if list_file_signs(tls) != self.tls_state.signs:
            try:
                self.tls_state = await self.prepare(tls)
                self._log.info("certificates changed")
            except InvalidCertificateError as error:
                why = str(error)
        if why and why != self._last_error:
            self._log.error("changed certificates cannot be used; the old ones stay", why=why)
        self._last_error = why
        what = None if self.tls_state.facts is None else describe_expiry(self.tls_state.facts, time.time())
        if what is not None and time.monotonic() - self._reminded >= REMINDER_SECONDS:
            self._reminded = time.monotonic()
            self._log.warning("certificate needs attention", file=str(tls.cert), certificate=what)


LISTENER = web.AppKey("listener", Listener)
"""The listener of an application."""


class Listeners:
    """All listeners of a collector. Their TLS changes together."""

    def __init__(self, listeners: Sequence[Listener]) -> None:
        self.all = tuple(listeners)
        self._changing = asyncio.Lock()

    @asynccontextmanager
    async def changing(self, tls: Tls | None) -> AsyncIterator[None]:
        """Use this TLS from the end of a block on, for listeners without TLS settings of their own.

        An error of the block, or an InvalidCertificateError, keeps the previous state.
        """
        async with self._changing:
            prepared = [await listener.prepare(tls) for listener in self.all]
            yield
            for listener, state in zip(self.all, prepared, strict=True):
                listener.tls_state = state

    async def watch(self, every: float = CHECK_SECONDS) -> None:
        """Check the certificate files every `every` seconds, until cancelled."""
        while True:
            await asyncio.sleep(every)
            async with self._changing:
                for listener in self.all:
                    await listener.look()

    async def end(self) -> None:
        """Close the listeners. New clients are refused, so that they try another collector."""
        for listener in self.all:
            await listener.connections.end()
            listener.listening.close()

    def expiry(self) -> dict[str, float]:
        """Return the Unix seconds when certificates expire, by file; empty without TLS."""
        return {
            str(listener.tls_state.tls.cert): listener.tls_state.facts.not_after
            for listener in self.all
            if listener.tls_state.tls is not None and listener.tls_state.facts is not None
        }


def list_file_signs(tls: Tls | None) -> list[object]:
    """Return signatures of the TLS files that reveal changes; empty without TLS."""
    return (
        []
        if tls is None
        else [compute_file_signature(file) for file in (tls.cert, tls.key, tls.client_ca) if file is not None]
    )


def build_tls_context(tls: Tls) -> tuple[ssl.SSLContext, CertificateDetails]:
    """Return a TLS context for these files, and the details of the certificate. Raises InvalidCertificateError.

    Reads files. Client certificates are requested but optional: `app.py` knows the paths that need one. The handshake
    fails for a certificate without a trusted issuer.
    """
    facts = read_certificate(tls.cert, tls.key)
    if tls.client_ca is not None:
        read_authorities(tls.client_ca)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_ciphers(CIPHERS)
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(tls.cert, tls.key, password="")
        if tls.client_ca is not None:
            context.verify_mode = ssl.CERT_OPTIONAL
            context.load_verify_locations(tls.client_ca)
    except OSError as error:  # The file changed after the checks above. ssl.SSLError is an OSError.
        raise InvalidCertificateError("cert", f"{tls.cert} cannot be used: {error}", "it is looked at again") from None
    return context, facts
