"""Who the edge is under TLS, and whom it believes: contexts made of certificate files, and made anew when these change.

A context serves the connections that begin with it, to their end. A set of files that cannot be used changes nothing.
"""

import ssl
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from edgeproxy.config import certificates
from edgeproxy.edge.proxy.client_hello import HTTP10, HTTP11

if TYPE_CHECKING:
    from edgeproxy.config.models import ListenerTls, UpstreamTls

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""What TLS 1.2 may use: forward secrecy and authenticated encryption (RFC 9325 section 4.2). TLS 1.3 has no others."""

OPTIONS = ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE

Place = tuple[str, str, int]
"""Whom a session is with: the name that was asked for, the IP address, the port."""

SESSIONS_MAX = 1024
"""Sessions that are remembered for one upstream, whose name may lead to ever other addresses."""


class Unusable(Exception):
    """Files are not there, or are not what they should be; the text says which and why."""


class Inward:
    """What a listener shows its clients, and what it asks of them."""

    def __init__(self, settings: "ListenerTls") -> None:
        """Raises Unusable."""
        self._settings = settings
        self.context: ssl.SSLContext
        """For connections that begin now."""
        self.load()

    def load(self) -> None:
        """Read the files anew. Raises Unusable, and then goes on with what there was."""
        pairs = self._settings.pairs
        contexts = [_serving(pair.cert, pair.key, self._settings.client_ca) for pair in pairs]
        if len(pairs) > 1:
            names: dict[str, ssl.SSLContext] = {}
            for pair, context in zip(pairs, contexts, strict=True):
                for name in _names(pair.cert, pair.key):
                    names.setdefault(name.lower(), context)
            contexts[0].sni_callback = Choice(names)
            sys.unraisablehook = _unless_a_name
        self.context = contexts[0]


class Choice:
    """Which of several certificates a client gets: by the name that it asks for (RFC 6066 section 3)."""

    def __init__(self, names: dict[str, ssl.SSLContext]) -> None:
        """`names`: in lower case; `*.example.com` is for all names of one label more than that (RFC 9525)."""
        self._names = names

    def of(self, name: str) -> ssl.SSLContext | None:
        """The context for a name; None where no certificate has it."""
        name = name.lower().removesuffix(".")
        return self._names.get(name) or self._names.get("*." + name.partition(".")[2])

    def __call__(self, tls: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        """OpenSSL asks, in the middle of a handshake."""
        chosen = None if name is None else self.of(name)
        if chosen is not None and chosen is not context:
            tls.context = chosen


class Outward:
    """How the edge speaks with an upstream: whom it believes, and who it says it is."""

    def __init__(self, settings: "UpstreamTls") -> None:
        """Raises Unusable."""
        self.settings = settings
        self.server_name = settings.server_name
        """The name that the certificate must have; None: the host of the endpoint."""
        self.context: ssl.SSLContext
        """For connections that begin now."""
        self.sessions: dict[Place, ssl.SSLSession] = {}
        """Of each place, one that the upstream may go on with instead of proving itself anew."""
        self.load()

    def keep(self, place: "Place", session: ssl.SSLSession | None) -> None:
        """A session of the context that is now in use."""
        if session is not None and session.has_ticket:
            if len(self.sessions) >= SESSIONS_MAX:
                self.sessions.clear()
            self.sessions[place] = session

    def load(self) -> None:
        """Read the files anew. Raises Unusable, and then goes on with what there was."""
        settings = self.settings
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        _agree(context, HTTP11)
        context.hostname_checks_common_name = False  # RFC 9525 section 6.4: names stand in subjectAltName alone.
        if not settings.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        elif settings.ca is None:
            context.load_default_certs()
        else:
            _believe(context, settings.ca)
        if settings.cert is not None and settings.key is not None:
            _show(context, settings.cert, settings.key)
        self.context = context
        self.sessions.clear()


def _serving(cert: Path, key: Path, client_ca: Path | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _agree(context, HTTP11, HTTP10)
    _show(context, cert, key)
    if client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        _believe(context, client_ca)
    return context


def _show(context: ssl.SSLContext, cert: Path, key: Path) -> None:
    try:
        # The password is there so that nobody is asked for one at a terminal.
        context.load_cert_chain(cert, key, password="")
    except OSError as failure:  # ssl.SSLError is one as well.
        raise Unusable(f"the certificate {cert} with the key {key}: {why_of(failure)}") from failure


def _believe(context: ssl.SSLContext, authorities: Path) -> None:
    try:
        context.load_verify_locations(authorities)
    except OSError as failure:
        raise Unusable(f"the authorities {authorities}: {why_of(failure)}") from failure


def _names(cert: Path, key: Path) -> tuple[str, ...]:
    try:
        return certificates.read(cert, key).names
    except certificates.Unusable as failure:
        raise Unusable(str(failure)) from failure


def _agree(context: ssl.SSLContext, *protocols: str) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= OPTIONS
    context.set_ciphers(CIPHERS)
    context.set_alpn_protocols(protocols)


def fault_of(failure: BaseException | None) -> str:
    """What broke a handshake, or a connection, in the words of RFC 9209 section 2.3. None: the upstream closed it."""
    if failure is None:
        return "connection_terminated"
    if isinstance(failure, ssl.SSLCertVerificationError):
        return "tls_certificate_error"
    if isinstance(failure, ssl.SSLError) and "_ALERT_" in (failure.reason or ""):
        return "tls_alert_received"
    return "tls_protocol_error"


def why_of(failure: BaseException | None) -> str:
    """What a person is told of it."""
    if failure is None:
        return "the peer closed the connection"
    if isinstance(failure, ssl.SSLCertVerificationError):
        return str(failure.verify_message)
    if isinstance(failure, ssl.SSLError) and failure.reason:
        return failure.reason.replace("_", " ").lower()
    return str(failure) or type(failure).__name__


def _unless_a_name(unraisable: "sys.UnraisableHookArgs") -> None:
    """A name that is no text is a client's, and no news: the handshake fails, and that is said elsewhere."""
    if not isinstance(unraisable.exc_value, UnicodeDecodeError):
        sys.__unraisablehook__(unraisable)
