"""TLS towards servers: authorities, own certificates, sessions. Contexts are made of certificate files.

A context serves the connections that begin with it, to their end. Unusable files change nothing. Listeners share the
ciphers and versions.
"""

import ssl
from pathlib import Path
from typing import Protocol

from edgeproxy.base.trust import OwnTlsSettings, load_authorities, load_certificate, load_trusted

HTTP11 = "http/1.1"
HTTP2 = "h2"
"""The ALPN names of HTTP/1.1 (RFC 7301 section 6) and of HTTP/2 (RFC 9113 section 3.2)."""

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Ciphers of TLS 1.2: forward secrecy and authenticated encryption (RFC 9325 section 4.2). TLS 1.3 has no others."""

OPTIONS = ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE

SessionPeer = tuple[str, str, int]
"""The peer of a session: server name, IP address, port."""

SESSIONS_MAX = 1024
"""Sessions that are stored for one upstream, whose name may resolve to ever other addresses."""


class ClientTlsSettings(OwnTlsSettings, Protocol):
    """The settings of a TLS client."""

    @property
    def server_name(self) -> str | None: ...


class ClientTls:
    """TLS of the edge towards an upstream."""

    def __init__(
        self, settings: ClientTlsSettings, protocol: str = HTTP11, trusted: tuple[Path, ...] | None = None
    ) -> None:
        """Load the files; raises TlsFilesError. `protocol` is an ALPN name.

        `trusted` are the files of the setting `trust`; None: those of the process.
        """
        self.settings, self.protocol, self.trusted = settings, protocol, trusted
        self.server_name = settings.server_name
        """The name that the certificate must have; None: the host of the endpoint."""
        self.context: ssl.SSLContext
        """The context of new connections."""
        self.sessions: dict[SessionPeer, ssl.SSLSession] = {}
        """A session of each peer, which the upstream may resume."""
        self.use_context(self.create_context())

    def keep(self, peer: "SessionPeer", session: ssl.SSLSession | None) -> None:
        """Store a session of the current context."""
        if session is not None and session.has_ticket:
            if len(self.sessions) >= SESSIONS_MAX:
                self.sessions.clear()
            self.sessions[peer] = session

    def create_context(self) -> ssl.SSLContext:
        """Read the files, and return a new context. Raises TlsFilesError."""
        settings = self.settings
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        set_protocols(context, self.protocol)
        context.hostname_checks_common_name = False  # RFC 9525 section 6.4: names stand in subjectAltName alone.
        if not settings.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        elif settings.ca is None:
            load_trusted(context, self.trusted)
        else:
            load_authorities(context, settings.ca)
        if settings.cert is not None and settings.key is not None:
            load_certificate(context, settings.cert, settings.key)
        return context

    def use_context(self, context: ssl.SSLContext) -> None:
        """Use this context for new connections. It resumes no session of another one."""
        self.context = context
        self.sessions.clear()


def set_protocols(context: ssl.SSLContext, *protocols: str) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= OPTIONS
    context.set_ciphers(CIPHERS)
    context.set_alpn_protocols(protocols)
