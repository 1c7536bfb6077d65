"""Certificates of a run: the servers', and a client's with a long chain."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from loadtest.testbed.authority import Authority, Pair, named, pem, private

_INTERMEDIATES = 8
"""Certificates between the authority and the client. Each one costs the server a verification."""


@dataclass(frozen=True)
class Materials:
    """The certificate of the servers, the authority of clients (a file), and a client's certificate with its chain."""

    server: Pair
    authority: Path
    client: Pair

    @property
    def joined(self) -> Path:
        """The server's certificate and key in one file, as HAProxy reads them."""
        return self.server.cert.with_suffix(".both.pem")


def create(folder: Path) -> Materials:
    """Create all of them in `folder`, which must not exist."""
    folder.mkdir()
    materials = Materials(
        Authority(folder).issue("localhost"), folder / "clients.pem", Pair(folder / "c.pem", folder / "c.key")
    )
    materials.joined.write_bytes(materials.server.cert.read_bytes() + materials.server.key.read_bytes())
    signer, key = named("clients"), ec.generate_private_key(ec.SECP384R1())
    materials.authority.write_bytes(pem(_signed(signer, key, signer, key, is_authority=True)))
    chain: list[bytes] = []
    for depth in range(_INTERMEDIATES + 1):
        subject, fresh = named(f"depth {depth}"), ec.generate_private_key(ec.SECP384R1())
        chain.insert(0, pem(_signed(subject, fresh, signer, key, is_authority=depth < _INTERMEDIATES)))
        signer, key = subject, fresh
    materials.client.cert.write_bytes(b"".join(chain))
    materials.client.key.write_bytes(private(key))
    return materials


def _signed(
    subject: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Name,
    signer: ec.EllipticCurvePrivateKey,
    *,
    is_authority: bool,
) -> x509.Certificate:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=2))
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .sign(signer, hashes.SHA384())
    )
