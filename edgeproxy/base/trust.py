"""Trust: the authorities whose certificates edgeproxy accepts from servers. All outgoing TLS connections use it.

They are the system's authorities, which the variables SSL_CERT_FILE and SSL_CERT_DIR replace as in OpenSSL, and the
files of the setting `trust`. A connection with its own authorities (`ca`) trusts only them.

`create_context` checks whether a file has changed, so new connections use a replaced file.
"""

import os
import re
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol

AUTHORITY_VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
CONTEXTS_MAX = 64
"""Maximum contexts that are stored for further connections."""

HASHED = re.compile(r"[0-9a-f]{8}\.[0-9]+")
"""The names of authorities' files in a directory, as OpenSSL expects them."""

Stamps = tuple[tuple[str, int, int, int], ...]
"""The state of files: names, and numbers that change with their content."""
_Arguments = tuple[Path | None, Path | None, Path | None, bool, bool]


class TlsFilesError(OSError):
    """A missing or invalid file of authorities or of an own certificate. The message names the file and the reason."""


class OwnTlsSettings(Protocol):
    """The settings of connections with files of their own; paths are of PEM files."""

    @property
    def verify(self) -> bool: ...
    @property
    def ca(self) -> Path | None: ...
    @property
    def cert(self) -> Path | None: ...
    @property
    def key(self) -> Path | None: ...


class TlsFiles(NamedTuple):
    """The files of connections, for clients that live longer than a context."""

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    verify: bool = True

    @classmethod
    def from_settings(cls, settings: OwnTlsSettings) -> "TlsFiles":
        """Return the files that the configuration names."""
        return cls(settings.ca, settings.cert, settings.key, settings.verify)

    def create_context(self) -> ssl.SSLContext:
        """Return the context for a connection that begins now. Raises TlsFilesError."""
        return create_context(self.ca, self.cert, self.key, verify=self.verify, check_hostname=self.verify)


class _Trust:
    def __init__(self) -> None:
        self.files: tuple[Path, ...] = ()
        self.bundle: int | None = None
        """The descriptor of the file with all authorities."""
        self.contexts: dict[_Arguments, tuple[Stamps, ssl.SSLContext]] = {}
        """Contexts, and the state of their files."""


_trust = _Trust()


def set_trust(files: Sequence[Path]) -> None:
    """Trust the authorities of these PEM files in the whole process from now on. Existing connections stay."""
    _trust.files = tuple(files)


def load_trusted(context: ssl.SSLContext, files: Sequence[Path] | None = None) -> None:
    """Make a context trust the system's authorities and those of these files; None: the files of the process.

    Raises TlsFilesError.
    """
    for variable in AUTHORITY_VARIABLES:
        if (at := os.environ.get(variable)) and not os.path.exists(at):
            raise TlsFilesError(f"the authorities {at} of {variable} are not there")
    context.load_default_certs()
    for file in _trust.files if files is None else files:
        load_authorities(context, file)


def load_authorities(context: ssl.SSLContext, file: Path) -> None:
    """Make a context trust the authorities of a PEM file. Raises TlsFilesError."""
    try:
        context.load_verify_locations(file)
    except OSError as error:  # It may be ssl.SSLError.
        raise TlsFilesError(f"the authorities {file}: {format_tls_error(error)}") from error


def load_certificate(context: ssl.SSLContext, cert: Path, key: Path | None) -> None:
    """Make a context present a certificate. Raises TlsFilesError."""
    try:
        # The password prevents a prompt at a terminal.
        context.load_cert_chain(cert, key, password="")
    except OSError as error:
        raise TlsFilesError(f"the certificate {cert} with the key {key or cert}: {format_tls_error(error)}") from error


def create_context(
    ca: Path | None = None,
    cert: Path | None = None,
    key: Path | None = None,
    *,
    verify: bool = True,
    check_hostname: bool = True,
) -> ssl.SSLContext:
    """Return the context for connections to servers of these authorities, or of the trusted ones. Raises TlsFilesError.

    Equal arguments return one context until a file changes. Reading the system's authorities takes some 20 ms.
    """
    stamps = stamp_files(ca, cert, key)
    arguments = (ca, cert, key, verify, check_hostname)
    known = _trust.contexts.get(arguments)
    if known is not None and known[0] == stamps:
        return known[1]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.hostname_checks_common_name = False  # RFC 9525 section 6.4: names stand in subjectAltName alone.
    if not verify:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    else:
        context.check_hostname = check_hostname
        if ca is None:
            load_trusted(context)
        else:
            load_authorities(context, ca)
    if cert is not None:
        load_certificate(context, cert, key)
    if len(_trust.contexts) >= CONTEXTS_MAX:
        _trust.contexts.clear()
    _trust.contexts[arguments] = stamps, context
    return context


def stamp_files(ca: Path | None = None, cert: Path | None = None, key: Path | None = None) -> Stamps:
    """Return the state of the files of a connection, for clients that live longer than a context."""
    files = [*_trust.files, *(os.environ.get(name) for name in AUTHORITY_VARIABLES)] if ca is None else [ca]
    return tuple(stamp_file(file) for file in (*files, cert, key) if file)


def read_bundle() -> bytes:
    """Return all trusted authorities as PEM, for libraries with their own TLS. Raises TlsFilesError."""
    load_trusted(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))  # This raises the usual errors for invalid files.
    paths = ssl.get_default_verify_paths()
    files = [Path(paths.cafile)] if paths.cafile else []
    if paths.capath:
        files += sorted(path for path in Path(paths.capath).iterdir() if HASHED.fullmatch(path.name))
    contents = dict.fromkeys(file.read_bytes() for file in (*files, *_trust.files))
    return b"\n".join(contents)


def write_bundle() -> str:
    """Write `read_bundle` to a file in memory that exists until the process ends. Raises TlsFilesError.

    Return its path, which a child process can read, too. It stays the same, as libraries open it for each connection.
    A file on a disk would stay after SIGKILL.
    """
    content = read_bundle()
    if _trust.bundle is None or Path(_build_path(_trust.bundle)).read_bytes() != content:
        with os.fdopen(os.memfd_create("authorities"), "wb", buffering=0) as file:
            file.write(content)
            if _trust.bundle is None:
                _trust.bundle = os.dup(file.fileno())
            else:
                os.dup2(file.fileno(), _trust.bundle, inheritable=False)  # A reader gets one content or the other.
    return _build_path(_trust.bundle)


def _build_path(descriptor: int) -> str:
    """Return the path of an open file. The process may be a fork of the one that opened it."""
    return f"/proc/{os.getpid()}/fd/{descriptor}"


@contextmanager
def trusted_by_variable() -> Iterator[None]:
    """Name all trusted authorities in SSL_CERT_FILE during a block, for libraries that read only this variable."""
    before, file = os.environ.get("SSL_CERT_FILE"), write_bundle()
    os.environ["SSL_CERT_FILE"] = file
    try:
        yield
    finally:
        if before is None:
            del os.environ["SSL_CERT_FILE"]
        else:
            os.environ["SSL_CERT_FILE"] = before


def stamp_file(file: str | Path) -> tuple[str, int, int, int]:
    """Return the state of one file. The numbers are zero if it does not exist."""
    try:
        at = os.stat(file)
    except OSError:
        return str(file), 0, 0, 0
    return str(file), at.st_ino, at.st_size, at.st_mtime_ns


def format_tls_error(error: BaseException | None) -> str:
    """Format a TLS error for people."""
    if error is None:
        return "the peer closed the connection"
    if isinstance(error, ssl.SSLCertVerificationError):
        return str(error.verify_message)
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.replace("_", " ").lower()
    return str(error) or type(error).__name__
