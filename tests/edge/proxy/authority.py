"""A certificate authority for transcripts, with TLS contexts that show or trust its certificates."""

import os
import ssl
from pathlib import Path

from loadtest.testbed import authority


class Authority(authority.Authority):
    """A certificate authority. Its own certificate is in `file`."""

    def issues(self, *names: str, expired: bool = False) -> tuple[Path, Path]:
        """Issue a certificate for these names and IP addresses. Return its file and its key's, named after the first.

        Files of an earlier certificate are replaced.
        """
        issued = self.issue(*names, age=10.0, days=-1.0 if expired else 10.0)
        stem = self._folder / names[0].replace("*", "any")
        cert, key = stem.with_suffix(".crt"), stem.with_suffix(".key")
        os.replace(issued.cert, cert)
        os.replace(issued.key, key)
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
