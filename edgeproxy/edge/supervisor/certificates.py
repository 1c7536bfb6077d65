"""The watch of certificate files: workers load a change that can be used; any other change is logged.

Programs replace certificates in several ways: they overwrite a file, rename one into place, or turn a symbolic link to
another directory, and replace the certificate and its key one after the other. So the file at the end of all links
counts, and a pair that does not match is checked again until it does.
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
        """Equal for files that are used in one way."""
        self.facts: CertificateDetails | None = None
        """Details of the certificate in use."""
        self.why = ""
        """The reason why the present files cannot be used; empty if they can."""
        self._files = files
        self._check = check
        self._used: list[FileSignature] = []

    def check(self) -> bool:
        """Return whether the files differ from those in use and can be used. Reads files: call it in a thread."""
        # Computed before the files are read, so that the next check sees a change in between.
        signatures = [compute_file_signature(file) for file in self._files]
        if signatures == self._used:
            self.why = ""
            return False
        try:
            self.facts = self._check(*self._files)
        except InvalidCertificateError as error:
            self.why = str(error)
            return False
        self._used, self.why = signatures, ""
        return True


class Certificates:
    """All certificate files of the serving configuration. `on_change` is called when workers must load them again."""

    def __init__(self, settings: EdgeFile, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self._watched = list_certificate_files(settings)
        self._logged: dict[CertificateFiles, str] = {}
        """The last message that was logged for files that cannot be used."""
        self._reminded: dict[CertificateFiles, float] = {}
        self._log = log.get_logger()

    async def watch(self, every: float = CHECK_SECONDS) -> None:
        """Check the files until cancelled.

        Call `check` once before workers load them, because changes are found by comparison.
        """
        while True:
            await asyncio.sleep(every)
            if await self.check():
                self._log.info("certificates changed")
                self._on_change()

    async def consider(self, settings: EdgeFile) -> list[CertificateFiles]:
        """Return the certificate files of another configuration, checked before workers load them.

        Pass them to `adopt` once it serves.
        """
        watched = {files.key: files for files in self._watched}
        named = [watched.get(files.key, files) for files in list_certificate_files(settings)]
        new = [files for files in named if files.key not in watched]
        await run_in_thread("check certificates", lambda: [files.check() for files in new])
        return named

    def adopt(self, named: list[CertificateFiles]) -> None:
        """Watch these files and no others."""
        for files in set(self._watched) - set(named):
            self._logged.pop(files, None)
            self._reminded.pop(files, None)
        self._watched = named

    async def check(self) -> bool:
        """Return whether files must be loaded again.

        Log each reason for unusable files once, and remind of certificates that expire.
        """
        watched = self._watched
        changes = await run_in_thread("check certificates", lambda: [files.check() for files in watched])
        now = time.time()
        for files in watched:
            if files.why != self._logged.get(files, ""):
                self._logged[files] = files.why
                if files.why:
                    self._log.error("changed certificates cannot be used; the old ones stay", why=files.why)
            self._remind(files, now)
        return any(changes)

    def _remind(self, files: CertificateFiles, now: float) -> None:
        expiry = None if files.facts is None else describe_expiry(files.facts, now)
        if expiry is None:
            self._reminded.pop(files, None)
        elif now - self._reminded.get(files, -REMINDER_SECONDS) >= REMINDER_SECONDS:
            self._reminded[files] = now
            self._log.warning("certificate needs attention", file=str(files.cert), certificate=expiry)

    def series(self) -> list[Series]:
        """Return the seconds until each certificate expires; negative after its expiry."""
        now = time.time()
        return [
            ("edge_tls_expiry_seconds", (str(files.cert),), (int(files.facts.not_after - now),))
            for files in self._watched
            if files.facts is not None
        ]


def list_certificate_files(settings: EdgeFile) -> list[CertificateFiles]:
    """List the certificate files that a configuration names."""
    pairs = [
        CertificateFiles(pair.cert, (pair.cert, pair.key), read_certificate) for pair in list_certificates(settings)
    ]
    return pairs + [CertificateFiles(None, (file,), read_authorities) for file in list_authority_files(settings)]
