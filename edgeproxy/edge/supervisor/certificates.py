"""Certificate files are watched: a change that can be used is loaded by all workers, any other is reported.

Certificates are replaced by programs, each in its own way: a file overwritten in place, renamed into place, or a
symbolic link that is turned to another directory; the certificate and its key one after the other. So the file at the
end of all links counts, and a pair that does not fit is checked again until it does.
"""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from edgeproxy.base import log
from edgeproxy.base.tasks import run_in_thread
from edgeproxy.config.certificates import (
    CertificateDetails,
    InvalidCertificateError,
    describe_expiry,
    read_authorities,
    read_certificate,
)
from edgeproxy.config.edge.certificates import list_authority_files, list_certificates
from edgeproxy.config.edge.settings import EdgeFile
from edgeproxy.config.file_signatures import FileSignature, compute_file_signature
from edgeproxy.edge.metrics import Series

CHECK_SECONDS = 2.0
"""Seconds between two checks of the files."""
REMINDER_SECONDS = 86400.0
"""Seconds between two log lines about one certificate that expires."""


class CertificateFiles:
    """Files that are used together: a certificate and its key, or authorities alone."""

    def __init__(
        self, cert: Path | None, files: tuple[Path, ...], check: Callable[..., CertificateDetails | None]
    ) -> None:
        self.cert = cert
        """The certificate that can expire."""
        self.key = (files, check)
        """Equal for files that are used in the same way."""
        self.facts: CertificateDetails | None = None
        """Details of the certificate in use."""
        self.why = ""
        """The reason why the present files cannot be used; empty where they can."""
        self._files = files
        self._check = check
        self._used: list[FileSignature] = []

    def check(self) -> bool:
        """Return whether the files differ from those in use and can be used. Reads files: call it in a thread."""
        signs = [
            compute_file_signature(file) for file in self._files
        ]  # Taken first: what changes after it is seen at the next look.
        if signs == self._used:
            self.why = ""
            return False
        try:
            self.facts = self._check(*self._files)
        except InvalidCertificateError as error:
            self.why = str(error)
            return False
        self._used, self.why = signs, ""
        return True


class Certificates:
    """All certificate files of the serving configuration. `changed` is called when some of them must be loaded
    again.
    """

    def __init__(self, settings: EdgeFile, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._held = list_certificate_files(settings)
        self._logged: dict[CertificateFiles, str] = {}
        """The last message that was logged for files that cannot be used."""
        self._reminded: dict[CertificateFiles, float] = {}
        self._log = log.get_logger()

    async def watch(self, every: float = CHECK_SECONDS) -> None:
        """Check the files for ever. Check them once before workers load them, as changes are found by comparison."""
        while True:
            await asyncio.sleep(every)
            if await self.check():
                self._log.info("certificates changed")
                self._changed()

    async def consider(self, settings: EdgeFile) -> list[CertificateFiles]:
        """Return the certificate files of another configuration, checked before anybody loads them. `adopt` them once
        it serves.
        """
        known = {held.key: held for held in self._held}
        named = [known.get(held.key, held) for held in list_certificate_files(settings)]
        await run_in_thread("look at certificates", lambda: [held.check() for held in named if held.key not in known])
        return named

    def adopt(self, held: list[CertificateFiles]) -> None:
        """Watch these files and no others."""
        for gone in set(self._held) - set(held):
            self._logged.pop(gone, None)
            self._reminded.pop(gone, None)
        self._held = held

    async def check(self) -> bool:
        """Return whether anything must be loaded again. Logs files that cannot be used, once, and certificates that
        expire.
        """
        looked = self._held
        news = await run_in_thread("look at certificates", lambda: [held.check() for held in looked])
        now = time.time()
        for held in looked:
            if held.why != self._logged.get(held, ""):
                self._logged[held] = held.why
                if held.why:
                    self._log.error("changed certificates cannot be used; the old ones stay", why=held.why)
            self._remind(held, now)
        return any(news)

    def _remind(self, held: CertificateFiles, now: float) -> None:
        what = None if held.facts is None else describe_expiry(held.facts, now)
        if what is None:
            self._reminded.pop(held, None)
        elif now - self._reminded.get(held, -REMINDER_SECONDS) >= REMINDER_SECONDS:
            self._reminded[held] = now
            self._log.warning("certificate needs attention", file=str(held.cert), certificate=what)

    def series(self) -> list[Series]:
        """Return the seconds until each certificate expires; negative where it has."""
        now = time.time()
        return [
            ("edge_tls_expiry_seconds", (str(held.cert),), (int(held.facts.not_after - now),))
            for held in self._held
            if held.facts is not None
        ]


def list_certificate_files(settings: EdgeFile) -> list[CertificateFiles]:
    """List the certificate files that a configuration names."""
    held = [
        CertificateFiles(pair.cert, (pair.cert, pair.key), read_certificate) for pair in list_certificates(settings)
    ]
    return held + [CertificateFiles(None, (file,), read_authorities) for file in list_authority_files(settings)]
