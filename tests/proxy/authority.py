"""Certificates for tests, made when they are needed by an authority of the test's own."""

import datetime
import ipaddress
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAY = datetime.timedelta(days=1)


class Authority:
    """An authority; `file` has its certificate."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._folder = folder
        self._name = name
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._certificate = self._sign(self._subject(), self._key.public_key(), x509.BasicConstraints(True, 0))
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))

    def issues(self, *names: str, file: str = "", expired: bool = False) -> tuple[Path, Path]:
        """(certificate, key) for names and IP addresses, in files; called again with the same `file`, in its place."""
        key = ec.generate_private_key(ec.SECP256R1())
        listed = x509.SubjectAlternativeName([_name(name) for name in names])
        certificate = self._sign(self._subject(names[0]), key.public_key(), listed, expired=expired)
        at = self._folder / (file or names[0].replace("*", "any"))
        cert, private = at.with_suffix(".crt"), at.with_suffix(".key")
        cert.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        private.write_bytes(key.private_bytes(*form))
        return cert, private

    def trusted(self, alpn: tuple[str, ...] = ("http/1.1",)) -> ssl.SSLContext:
        """How a client speaks that believes this authority."""
        context = ssl.create_default_context(cafile=str(self.file))
        context.set_alpn_protocols(alpn)
        return context

    def serving(self, *names: str) -> ssl.SSLContext:
        """How a server speaks that has a certificate of this authority."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.issues(*names))
        return context

    def _subject(self, name: str = "") -> x509.Name:
        # No name of a host in it: those stand in the alternative names.
        return x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, f"{self._name} {name}".strip())])

    def _sign(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePublicKey,
        extension: x509.ExtensionType,
        *,
        expired: bool = False,
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._subject())
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 10 * DAY)
            .not_valid_after(now - DAY if expired else now + 10 * DAY)
            .add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
        )
        return builder.sign(self._key, hashes.SHA256())


def _name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
