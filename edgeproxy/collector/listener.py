"""Where the collector is reached: one socket for life, and TLS made anew whenever the files of its certificates change.

Connections go on with what they began with. Files that cannot be used change nothing.
"""

import asyncio
import socket
import ssl
import time

from aiohttp import web

from edgeproxy import log
from edgeproxy.config.certificates import Facts, Unusable, read, read_authorities, worry
from edgeproxy.config.collector import Tls
from edgeproxy.config.file_signatures import sign
from edgeproxy.tasks import in_thread
from edgeproxy.web_listener import WebListener

CHECK_SECONDS = 2.0
"""Seconds between two looks at the files."""
REMINDER_SECONDS = 86400.0
"""Seconds between two log lines about a certificate that expires."""
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""What TLS 1.2 may use: forward secrecy and authenticated encryption (RFC 9325 section 4.2). TLS 1.3 has no others."""


class Listener:
    """Answers on a bound socket, under the TLS of `use`; None: in the clear."""

    def __init__(self, runner: web.AppRunner, listening: socket.socket, connections: WebListener) -> None:
        self._runner = runner
        self._listening = listening
        self._connections = connections
        self._context: ssl.SSLContext | None = None
        self._accepts = False
        self._changing = asyncio.Lock()
        self._tls: Tls | None = None
        self._signs: list[object] = []
        self._said = ""
        """What was last said of files that cannot be used."""
        self._reminded = -REMINDER_SECONDS
        self._log = log.get()
        self.facts: Facts | None = None
        """Of the certificate that is shown."""

    async def use(self, tls: Tls | None) -> None:
        """Serve connections that begin from now on so; raises Unusable, and then goes on as it was."""
        async with self._changing:
            await self._use(tls)

    async def _use(self, tls: Tls | None) -> None:
        signs = signs_of(tls)  # Taken first: what changes after it is seen at the next look.
        made = None if tls is None else await in_thread("read certificates", lambda: serving(tls))
        self._context, self.facts = (None, None) if made is None else made
        self._tls, self._signs = tls, signs
        if not self._accepts:
            self._accepts = True
            self._connections.accept(self._runner, self._listening, lambda: self._context)

    async def watch(self, every: float = CHECK_SECONDS) -> None:
        """Look at the files again and again."""
        while True:
            await asyncio.sleep(every)
            await self.look()

    async def look(self) -> None:
        """Use files that have changed, and say once what cannot be used, and now and then what expires."""
        if self._tls is None:
            return
        why = ""
        if signs_of(self._tls) != self._signs:
            try:
                await self.use(self._tls)
                self._log.info("certificates changed")
            except Unusable as problem:
                why = str(problem)
        if why and why != self._said:
            self._log.error("changed certificates cannot be used; the old ones stay", why=why)
        self._said = why
        what = None if self.facts is None else worry(self.facts, time.time())
        if what is not None and time.monotonic() - self._reminded >= REMINDER_SECONDS:
            self._reminded = time.monotonic()
            self._log.warning("certificate needs attention", file=str(self._tls.cert), certificate=what)

    def expiry(self) -> dict[str, float]:
        """The Unix second at which the certificate expires, by its file; empty in the clear."""
        return {} if self._tls is None or self.facts is None else {str(self._tls.cert): self.facts.not_after}


def signs_of(tls: Tls | None) -> list[object]:
    """By what it shows that a file has changed."""
    return [] if tls is None else [sign(file) for file in (tls.cert, tls.key, tls.client_ca) if file is not None]


def serving(tls: Tls) -> tuple[ssl.SSLContext, Facts]:
    """TLS as these files have it, and what its certificate says; raises Unusable. Reads files.

    Certificates of clients are asked for, and not insisted on: which paths need one is for `app.py` to say. One that
    nobody vouches for ends in the handshake.
    """
    facts = read(tls.cert, tls.key)
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
    except OSError as changed:  # Just now; ssl.SSLError is one as well.
        raise Unusable("cert", f"{tls.cert} cannot be used: {changed}", "it is looked at again") from None
    return context, facts
