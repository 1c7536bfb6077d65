"""TLS towards clients: the listener's certificates, and the authorities of client certificates.

A context serves its connections to their end. A set of unusable files changes nothing.
"""

import ssl
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from edgeproxy.base.client_tls import HTTP2, HTTP11, set_protocols
from edgeproxy.base.trust import TlsFilesError, load_authorities, load_certificate
from edgeproxy.config import certificates
from edgeproxy.edge.proxy.transport.client_hello import ACME_TLS, HTTP10, SPOKEN, SPOKEN_WITH_HTTP2

if TYPE_CHECKING:
    from edgeproxy.config.edge.listeners import ListenerTls


class ServerTls:
    """The certificates that a listener presents to clients, and its requirements for theirs."""

    def __init__(self, settings: "ListenerTls", state: Path, *, http2: bool = False) -> None:
        """`state` is the edge's directory. `http2`: HTTP/2 is offered to clients. Raises TlsFilesError."""
        self._settings, self._state = settings, state
        self._protocols = (HTTP2, HTTP11, HTTP10) if http2 else (HTTP11, HTTP10)
        self.spoken = SPOKEN_WITH_HTTP2 if http2 else SPOKEN
        """The accepted protocols. A client that offers any (ALPN) must offer one of these."""
        self.context = self.create_context()
        """The context for new connections."""

    def create_context(self) -> ssl.SSLContext:
        """Read the files, and return a new context. Raises TlsFilesError."""
        pairs = self._settings.list_pairs(self._state)
        client_ca = self._settings.client_ca
        contexts = [_create_context(pair.cert, pair.key, client_ca, self._protocols) for pair in pairs]
        if len(pairs) > 1:
            names: dict[str, ssl.SSLContext] = {}
            for pair, context in zip(pairs, contexts, strict=True):
                for name in _read_names(pair.cert, pair.key):
                    names.setdefault(name.lower(), context)
            # Each connection begins with the first context, so only its callback is called.
            contexts[0].sni_callback = CertificateSelector(names)
            sys.unraisablehook = _ignore_bad_names
        return contexts[0]

    def use_context(self, context: ssl.SSLContext) -> None:
        """Use this context for new connections."""
        self.context = context


class CertificateSelector:
    """The certificates of a listener by the name that a client requests (RFC 6066 section 3)."""

    def __init__(self, names: dict[str, ssl.SSLContext]) -> None:
        """`names`: in lower case; `*.example.com` is for all names of one label more than that (RFC 9525)."""
        self._names = names

    def find_context(self, name: str) -> ssl.SSLContext | None:
        """Return the context for a name; None if no certificate has it."""
        name = name.lower().removesuffix(".")
        return self._names.get(name) or self._names.get("*." + name.partition(".")[2])

    def __call__(self, tls: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        """Select the context during a handshake; OpenSSL calls this."""
        chosen = None if name is None else self.find_context(name)
        # Without a match the first certificate is presented, as RFC 6066 section 3 allows. The client checks its name.
        if chosen is not None and chosen is not context:
            tls.context = chosen


def create_challenge_context(certificates: Mapping[str, str]) -> tuple[ssl.SSLContext | None, str]:
    """Create the context for an authority that checks challenges in a handshake (RFC 8737); None without challenges.

    `certificates` are files by name. A file that cannot be read is left out, and the text says why: the challenge may
    be over.
    """
    why = ""
    names: dict[str, ssl.SSLContext] = {}
    for name, file in certificates.items():
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        set_protocols(context, ACME_TLS)
        try:
            load_certificate(context, Path(file), None)
        except TlsFilesError as error:
            why = str(error)
            continue
        names[name] = context
    first = next(iter(names.values()), None)
    if first is not None:
        first.sni_callback = CertificateSelector(names)
    return first, why


def _create_context(cert: Path, key: Path, client_ca: Path | None, protocols: tuple[str, ...]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    set_protocols(context, *protocols)
    load_certificate(context, cert, key)
    if client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        load_authorities(context, client_ca)
    return context


def _read_names(cert: Path, key: Path) -> tuple[str, ...]:
    try:
        return certificates.read_certificate(cert, key).names
    except certificates.InvalidCertificateError as error:
        raise TlsFilesError(str(error)) from error


def classify_tls_error(error: BaseException | None) -> str:
    """Return the error of a handshake or a connection, in the terms of RFC 9209 section 2.3.

    None: the upstream closed it.
    """
    if error is None:
        return "connection_terminated"
    if isinstance(error, ssl.SSLCertVerificationError):
        return "tls_certificate_error"
    if isinstance(error, ssl.SSLError) and "_ALERT_" in (error.reason or ""):
        return "tls_alert_received"
    return "tls_protocol_error"


def _ignore_bad_names(unraisable: "sys.UnraisableHookArgs") -> None:
    """Ignore a client's name that is not a text. The handshake fails, and is logged elsewhere."""
    if not isinstance(unraisable.exc_value, UnicodeDecodeError):
        sys.__unraisablehook__(unraisable)
