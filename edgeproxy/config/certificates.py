"""Certificates and their keys, which the configuration names and files hold: whether they can be used.

What is found here is what OpenSSL would refuse later, in words that say which file is meant and what to do. A
certificate that has expired is no fault: an edge that would not start for it turns a warning into an outage.
Only the supervisor and `edgeproxy check` ask; `cryptography` is imported where there is TLS, and not before.
"""

import ssl
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeGuard

from edgeproxy.config.models import Certificate, HubTls, UpstreamTls, Written
from edgeproxy.config.references import Fault, tls_pairs, tls_sections
from edgeproxy.config.tree import Table, Value

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

FILE_BYTES_MAX = 16 << 20
"""Bytes of one file; a bundle of all public authorities has a quarter of a million."""

DAY_SECONDS = 86400
EXPIRY_WARNING_DAYS = 14
"""Days before a certificate expires from which on it is spoken of; most are renewed a month before."""

A_CERTIFICATE = "it is PEM, and begins with -----BEGIN CERTIFICATE-----"
A_KEY = "it is PEM, and begins with -----BEGIN PRIVATE KEY-----"


class Unusable(Exception):
    """A file that cannot be used: the `field` that names it (`cert`, `key` or `ca`), what is wrong, what is right."""

    def __init__(self, field: str, what: str, hint: str) -> None:
        super().__init__(field, what, hint)
        self.field = field
        self.what = what
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.what}, {self.hint}"


class Facts(NamedTuple):
    """A certificate's names, and the Unix seconds between which it is valid."""

    names: tuple[str, ...]
    not_before: float
    not_after: float


def read(cert: Path, key: Path) -> Facts:
    """Read the first certificate in `cert`. Raises Unusable where `key` does not hold its private key.

    Both are PEM, and may be one file. Further certificates in `cert` are those between the first and its root.
    """
    first, *others = _chain(cert)
    public = _private(key).public_key()
    if public != first.public_key():
        if any(public == other.public_key() for other in others):
            what, hint = f"{cert} begins with another certificate than that of {key}", "put that one first"
            raise Unusable("cert", what, hint)
        raise Unusable("key", f"{key} is not the key of the certificate in {cert}", "name the one that it was made for")
    try:
        # OpenSSL alone knows what else it refuses, such as keys that are too short.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, password="")
    except OSError as refused:  # ssl.SSLError, or the file was taken away just now.
        raise Unusable("cert", f"{cert} is refused by OpenSSL: {_reason(refused)}", "have another one made") from None
    return _facts(first)


def read_authorities(file: Path) -> None:
    """Raises Unusable unless `file` holds certificates by which others can be verified."""
    _content("ca", file)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(file)
    except OSError:
        raise Unusable("ca", f"{file} has no certificate that can be read", A_CERTIFICATE) from None
    if not context.cert_store_stats()["x509"]:
        raise Unusable("ca", f"{file} has lists of revoked certificates alone", A_CERTIFICATE)


def pairs(settings: Written) -> list[Certificate]:
    """Every certificate with its key that a configuration names, each once: the edge's own."""
    named = [pair for listener in settings.listen if listener.tls is not None for pair in listener.tls.pairs]
    for tls in _outward(settings):
        if tls.cert is not None and tls.key is not None:
            named.append(Certificate(cert=tls.cert, key=tls.key))
    return list(dict.fromkeys(named))


def authorities(settings: Written) -> list[Path]:
    """Every file of authorities that a configuration names, each once."""
    named = [listener.tls.client_ca for listener in settings.listen if listener.tls is not None]
    named += [tls.ca for tls in _outward(settings)]
    return [file for file in dict.fromkeys(named) if file is not None]


def _outward(settings: Written) -> list[UpstreamTls | HubTls]:
    """TLS towards those whom the edge connects to."""
    towards: list[UpstreamTls | HubTls] = [upstream.tls for upstream in settings.upstreams.values()]
    towards.append(settings.hub.tls)
    return towards if settings.usage is None else [*towards, settings.usage.tls]


def worry(facts: Facts, now: float) -> str | None:
    """Say whether it has expired at `now` (Unix seconds), is about to, or is not valid yet; None where all is well."""
    end = datetime.fromtimestamp(facts.not_after, UTC)
    if now >= facts.not_after:
        return f"expired on {end:%Y-%m-%d}"
    if now < facts.not_before:
        return f"is not valid before {datetime.fromtimestamp(facts.not_before, UTC):%Y-%m-%d %H:%M} UTC"
    days = int((facts.not_after - now) // DAY_SECONDS)
    return f"expires in {days} days, on {end:%Y-%m-%d}" if days < EXPIRY_WARNING_DAYS else None


def worries(settings: Written, now: float) -> list[str]:
    """`worry` of every certificate that a configuration names, behind its file; raises Unusable."""
    return worries_of(pairs(settings), now)


def worries_of(some: Iterable[Certificate], now: float) -> list[str]:
    """Find such worries about several certificates."""
    found = [(pair.cert, worry(read(pair.cert, pair.key), now)) for pair in some]
    return [f"{file} {what}" for file, what in found if what is not None]


def faults(tree: Table) -> Iterator[Fault]:
    """Find what is wrong with the certificates that a configuration names. Ignores values of another shape."""
    for path, tls in tls_sections(tree):
        for at, pair in tls_pairs(path, tls):
            cert, key = pair.get("cert"), pair.get("key")
            if _is_named(cert) and _is_named(key):
                files = Path(cert), Path(key)
                alone = [*_problems(_chain, files[0]), *_problems(_private, files[1])]
                for problem in alone or _problems(read, *files):
                    yield Fault((*at, problem.field), problem.what, problem.hint)
        for field in ("ca", "client_ca"):
            authorities = tls.get(field)
            if _is_named(authorities):
                for problem in _problems(read_authorities, Path(authorities)):
                    yield Fault((*path, field), problem.what, problem.hint)


def named(tree: Table) -> Iterator[Path]:
    """List the files that a configuration names, whatever they are."""
    for path, tls in tls_sections(tree):
        found = [pair.get(field) for _, pair in tls_pairs(path, tls) for field in ("cert", "key")]
        for file in (*found, tls.get("ca"), tls.get("client_ca")):
            if _is_named(file):
                yield Path(file)


def _problems(check: Callable[..., object], *files: Path) -> list[Unusable]:
    """Return the problem that `check` finds in these files, if there is one."""
    try:
        check(*files)
    except Unusable as problem:
        return [problem]
    return []


def _is_named(value: Value) -> TypeGuard[str]:
    """Whether a value is a file's name, as `parsers.read_file` takes it."""
    return isinstance(value, str) and bool(value) and value.isprintable()


def _content(field: str, file: Path) -> bytes:
    """Read a file. Raises Unusable."""
    try:
        with file.open("rb") as stream:
            content = stream.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise Unusable(field, f"{file} cannot be read: {error.strerror}", "name a file that can be read") from None
    if len(content) > FILE_BYTES_MAX:
        raise Unusable(field, f"{file} is larger than {FILE_BYTES_MAX >> 20} MiB", "name another file")
    return content


def _chain(file: Path) -> "list[x509.Certificate]":
    """Read the certificates in a file, at least one."""
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm

    content = _content("cert", file)
    try:
        certificates = x509.load_pem_x509_certificates(content)
        for certificate in certificates:
            certificate.public_key()
        return certificates
    except UnsupportedAlgorithm as kind:
        raise Unusable("cert", f"{file} has a key of an unknown kind: {kind}", "have another one made") from None
    except ValueError:
        what = "has a certificate that cannot be read" if b"-----BEGIN CERT" in content else "has no certificate"
        raise Unusable("cert", f"{file} {what}", A_CERTIFICATE) from None


def _private(file: Path) -> "PrivateKeyTypes":
    """Read the private key in a file."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        return load_pem_private_key(_content("key", file), None)
    except TypeError:
        hint = f"take the password off it: openssl pkey -in {file} -out FILE"
        raise Unusable("key", f"{file} has a password", hint) from None
    except (ValueError, UnsupportedAlgorithm):
        raise Unusable("key", f"{file} has no private key that can be read", A_KEY) from None


def _facts(certificate: "x509.Certificate") -> Facts:
    """The names are those of subjectAltName, else the common name (RFC 9525 section 2 knows only the first)."""
    from cryptography import x509

    try:
        alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names = alternatives.get_values_for_type(x509.DNSName)
        names += [str(address) for address in alternatives.get_values_for_type(x509.IPAddress)]
    except x509.ExtensionNotFound:
        common = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        names = [str(attribute.value) for attribute in common]
    except ValueError:  # OpenSSL has taken it, whatever is odd about one of its extensions.
        names = []
    span = certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp()
    return Facts(tuple(names), *span)


def _reason(refused: OSError) -> str:
    """Why OpenSSL refused something, in its own words: `ee key too small`."""
    return str(getattr(refused, "reason", None) or refused.strerror or refused).replace("_", " ").lower()
