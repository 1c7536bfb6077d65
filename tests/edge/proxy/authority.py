"""Certificates in the words of transcripts: who has one, who believes it."""

import os
import ssl
from pathlib import Path

from loadtest.testbed import authority


class Authority(authority.Authority):
    """An authority; `file` has its certificate."""

    def issues(self, *names: str, expired: bool = False) -> tuple[Path, Path]:
        """(certificate, key) for names and IP addresses, in files named after the first; made anew in place."""
        pair = self.issue(*names, age=10.0, days=-1.0 if expired else 10.0)
        at = self._folder / names[0].replace("*", "any")
        cert, key = at.with_suffix(".crt"), at.with_suffix(".key")
        os.replace(pair.cert, cert)
        os.replace(pair.key, key)
        return cert, key

    def trusted(self, alpn: tuple[str, ...] = ("http/1.1",)) -> ssl.SSLContext:
        """Return the TLS context of a client that trusts this authority."""
        context = ssl.create_default_context(cafile=str(self.file))
        context.set_alpn_protocols(alpn)
        return context

    def serving(self, *names: str) -> ssl.SSLContext:
        """Return the TLS context of a server with a certificate of this authority."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.issues(*names))
        return context
