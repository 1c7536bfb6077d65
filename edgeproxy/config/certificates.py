"""Checks of the certificates and keys in files that the configuration names.

They find what OpenSSL would refuse later, and say which file is meant and what to do. An expired certificate is only a
warning, because an edge that does not start is worse. Only supervisors and `edgeproxy check` run these checks.
`cryptography` is imported only if TLS is configured.
"""

import ssl
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeGuard

from edgeproxy.config.references import Fault, list_tls_pairs, list_tls_sections
from edgeproxy.config.tls import Certificate
from edgeproxy.config.tree import Items, Table, Value

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes


FILE_BYTES_MAX = 16 << 20
"""Maximum bytes of one file. A bundle of all public authorities has about 250,000 bytes."""
DAY_SECONDS = 86400
EXPIRY_WARNING_DAYS = 14
"""Days of warning before a certificate expires. Most are renewed a month before."""
A_CERTIFICATE = "it is PEM, and begins with -----BEGIN CERTIFICATE-----"
A_KEY = "it is PEM, and begins with -----BEGIN PRIVATE KEY-----"


class InvalidCertificateError(Exception):
    """An unusable file: the `field` that names it (`cert`, `key` or `ca`), the problem and a hint."""

    def __init__(self, field: str, what: str, hint: str) -> None:
        super().__init__(field, what, hint)
        self.field = field
        self.what = what
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.what}, {self.hint}"


class CertificateDetails(NamedTuple):
    """A certificate's names, and the Unix seconds of its validity."""

    names: tuple[str, ...]
    not_before: float
    not_after: float


def read_certificate(cert: Path, key: Path) -> CertificateDetails:
    """Read the first certificate in `cert`. Raises InvalidCertificateError if `key` does not contain its private key.

    Both files are PEM, and one file may be both. Further certificates in `cert` are the chain to the root.
    """
    first, *others = _read_chain(cert)
    public = _read_private_key(key).public_key()
    if public != first.public_key():
        if any(public == other.public_key() for other in others):
            what, hint = f"{cert} begins with another certificate than that of {key}", "put that one first"
            raise InvalidCertificateError("cert", what, hint)
        raise InvalidCertificateError(
            "key", f"{key} is not the key of the certificate in {cert}", "name the one that it was made for"
        )
    try:
        # Only OpenSSL knows its other reasons to refuse, for example too short keys.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, password="")
    except OSError as error:  # ssl.SSLError, or the file was deleted just now.
        raise InvalidCertificateError(
            "cert", f"{cert} is refused by OpenSSL: {_format_reason(error)}", "have another one made"
        ) from None
    return _extract_details(first)


def read_authorities(file: Path) -> None:
    """Raise InvalidCertificateError unless `file` contains certificates that can verify others."""
    _read_content("ca", file)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(file)
    except OSError:
        raise InvalidCertificateError("ca", f"{file} has no certificate that can be read", A_CERTIFICATE) from None
    if not context.cert_store_stats()["x509"]:
        raise InvalidCertificateError("ca", f"{file} has lists of revoked certificates alone", A_CERTIFICATE)


def describe_expiry(facts: CertificateDetails, now: float) -> str | None:
    """Describe the expiry of a certificate at `now` (Unix seconds): past, near or not valid yet. None: it is valid."""
    end = datetime.fromtimestamp(facts.not_after, UTC)
    if now >= facts.not_after:
        return f"expired on {end:%Y-%m-%d}"
    if now < facts.not_before:
        return f"is not valid before {datetime.fromtimestamp(facts.not_before, UTC):%Y-%m-%d %H:%M} UTC"
    days = int((facts.not_after - now) // DAY_SECONDS)
    return f"expires in {days} days, on {end:%Y-%m-%d}" if days < EXPIRY_WARNING_DAYS else None


def format_expiry_warnings(some: Iterable[Certificate], now: float) -> list[str]:
    """Return the warnings about the expiry of several certificates."""
    expiries = [(pair.cert, describe_expiry(read_certificate(pair.cert, pair.key), now)) for pair in some]
    return [f"{file} {what}" for file, what in expiries if what is not None]


def find_faults(tree: Table) -> Iterator[Fault]:
    """Find faults of the certificates that a configuration names. Values of another shape are ignored."""
    for path, tls in list_tls_sections(tree):
        for at, pair in list_tls_pairs(path, tls):
            cert, key = pair.get("cert"), pair.get("key")
            if _is_named(cert) and _is_named(key):
                files = Path(cert), Path(key)
                alone = [*_find_problems(_read_chain, files[0]), *_find_problems(_read_private_key, files[1])]
                for problem in alone or _find_problems(read_certificate, *files):
                    yield Fault((*at, problem.field), problem.what, problem.hint)
        for field in ("ca", "client_ca"):
            authorities = tls.get(field)
            if _is_named(authorities):
                for problem in _find_problems(read_authorities, Path(authorities)):
                    yield Fault((*path, field), problem.what, problem.hint)
    for number, file in enumerate(_list_trusted(tree)):
        for problem in _find_problems(read_authorities, file):
            yield Fault(("trust", "files", number), problem.what, problem.hint)


def _list_trusted(tree: Table) -> list[Path]:
    """List the files of authorities that the setting `trust` names."""
    trust = tree.get("trust")
    files = trust.get("files") if isinstance(trust, Table) else None
    named = files if isinstance(files, Items) else [files]
    return [Path(file) for file in named if isinstance(file, str) and _is_named(file)]


def list_named_files(tree: Table) -> Iterator[Path]:
    """List all files that a configuration names."""
    yield from _list_trusted(tree)
    for path, tls in list_tls_sections(tree):
        pair_files = [pair.get(field) for _, pair in list_tls_pairs(path, tls) for field in ("cert", "key")]
        for file in (*pair_files, tls.get("ca"), tls.get("client_ca")):
            if _is_named(file):
                yield Path(file)


def _find_problems(check: Callable[..., object], *files: Path) -> list[InvalidCertificateError]:
    """Return the problem that `check` finds in these files, if any."""
    try:
        check(*files)
    except InvalidCertificateError as error:
        return [error]
    return []


def _is_named(value: Value) -> TypeGuard[str]:
    """Return whether a value is the name of a file, as `parsers.read_file` accepts it."""
    return isinstance(value, str) and bool(value) and value.isprintable()


def _read_content(field: str, file: Path) -> bytes:
    """Read a file. Raises InvalidCertificateError."""
    try:
        with file.open("rb") as stream:
            content = stream.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise InvalidCertificateError(
            field, f"{file} cannot be read: {error.strerror}", "name a file that can be read"
        ) from None
    if len(content) > FILE_BYTES_MAX:
        raise InvalidCertificateError(field, f"{file} is larger than {FILE_BYTES_MAX >> 20} MiB", "name another file")
    return content


def _read_chain(file: Path) -> "list[x509.Certificate]":
    """Read the certificates in a file, at least one."""
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm

    content = _read_content("cert", file)
    try:
        certificates = x509.load_pem_x509_certificates(content)
        for certificate in certificates:
            certificate.public_key()
        return certificates
    except UnsupportedAlgorithm as error:
        raise InvalidCertificateError(
            "cert", f"{file} has a key of an unknown kind: {error}", "have another one made"
        ) from None
    except ValueError:
        what = "has a certificate that cannot be read" if b"-----BEGIN CERT" in content else "has no certificate"
        raise InvalidCertificateError("cert", f"{file} {what}", A_CERTIFICATE) from None


def _read_private_key(file: Path) -> "PrivateKeyTypes":
    """Read the private key in a file."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        return load_pem_private_key(_read_content("key", file), None)
    except TypeError:
        hint = f"take the password off it: openssl pkey -in {file} -out FILE"
        raise InvalidCertificateError("key", f"{file} has a password", hint) from None
    except (ValueError, UnsupportedAlgorithm):
        raise InvalidCertificateError("key", f"{file} has no private key that can be read", A_KEY) from None


def _extract_details(certificate: "x509.Certificate") -> CertificateDetails:
    """Return the details of a certificate. Its names are in subjectAltName, or else the common name.

    RFC 9525 section 2 allows only subjectAltName.
    """
    from cryptography import x509

    try:
        alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names = alternatives.get_values_for_type(x509.DNSName)
        names += [str(address) for address in alternatives.get_values_for_type(x509.IPAddress)]
    except x509.ExtensionNotFound:
        common = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        names = [str(attribute.value) for attribute in common]
    except ValueError:  # OpenSSL has accepted the certificate, so an odd extension is no fault.
        names = []
    span = certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp()
    return CertificateDetails(tuple(names), *span)


def _format_reason(error: OSError) -> str:
    """Return OpenSSL's own words for its refusal: `ee key too small`."""
    return str(getattr(error, "reason", None) or error.strerror or error).replace("_", " ").lower()
