"""Hostile TLS: handshakes that cost the server more than the client, tiny records, updates of keys."""

import hashlib
import hmac
import ssl
import tempfile
from collections.abc import Iterator
from functools import cache
from struct import pack

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from loadtest.neighbours.kinds.heads import endless, head
from loadtest.neighbours.neighbour import Neighbour, Piece, Polite

_POLITE = Polite(door="tls")
_UPDATES = 200
"""Updates of keys in one write."""


def context() -> ssl.SSLContext:
    """Return a client's context that verifies no certificate: the peers are our own."""
    created = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    created.check_hostname, created.verify_mode = False, ssl.CERT_NONE
    return created


@cache
def client_hello() -> bytes:
    """A ClientHello, whose answer costs the server a signature."""
    outgoing = ssl.MemoryBIO()
    try:
        context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost").do_handshake()
    except ssl.SSLWantReadError:
        pass
    return outgoing.read()


def key_updates(inbox: bytearray) -> Iterator[Piece]:
    """A handshake of TLS 1.3, and then KeyUpdate messages that ask for updates in return (RFC 8446 section 4.6.3)."""
    with tempfile.NamedTemporaryFile("r", prefix="edgeproxy-neighbours-") as log:
        created = context()
        created.minimum_version = ssl.TLSVersion.TLSv1_3
        created.keylog_filename = log.name
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        session = created.wrap_bio(incoming, outgoing, server_hostname="localhost")
        while True:
            try:
                session.do_handshake()
                break
            except ssl.SSLWantReadError:
                yield outgoing.read() or 0.01
                incoming.write(bytes(inbox))
                del inbox[:]
        yield outgoing.read()
        cipher = session.cipher()
        secret = next(bytes.fromhex(row.split()[2]) for row in log if row.startswith("CLIENT_TRAFFIC_SECRET_0"))
    if cipher is None or "AES_256_GCM_SHA384" not in cipher[0]:
        raise ValueError(f"a cipher that this attacker does not speak: {cipher}")
    while True:
        del inbox[:]
        records = bytearray()
        for _ in range(_UPDATES):
            # Handshake message 24 with a body of one byte, then the record's inner type.
            records += _record(secret, b"\x18\x00\x00\x01\x01\x16")
            secret = _expand(secret, b"traffic upd", 48)
        yield bytes(records)


def _record(secret: bytes, inner: bytes) -> bytes:
    """The first record under this traffic secret (RFC 8446 section 5.2)."""
    head = b"\x17\x03\x03" + pack(">H", len(inner) + 16)
    return head + AESGCM(_expand(secret, b"key", 32)).encrypt(_expand(secret, b"iv", 12), inner, head)


def _expand(secret: bytes, label: bytes, length: int) -> bytes:
    """HKDF-Expand-Label of SHA-384, for no more than one block (RFC 8446 section 7.1)."""
    name = b"tls13 " + label
    info = pack(">H", length) + bytes((len(name),)) + name + b"\x00\x01"
    return hmac.new(secret, info, hashlib.sha384).digest()[:length]


ROWS = (
    Neighbour("tls-hellos", lambda inbox: iter((client_hello(), 0.003)), "tls-bytes", polite=_POLITE, pause=0.0),
    Neighbour("tls-handshakes", lambda inbox: iter(()), "tls", polite=_POLITE, pause=0.0),
    Neighbour(
        "tls-half-hellos", lambda inbox: iter((client_hello()[:100], 3600.0)), "tls-bytes", polite=_POLITE, parallel=80
    ),
    Neighbour("tls-tiny-records", endless(head("/none") * 200), "tls", polite=_POLITE, chop=1),
    Neighbour("tls-pipelined", endless(head("/none") * 2000), "tls", polite=_POLITE),
    Neighbour("tls-key-updates", key_updates, "tls-bytes", polite=_POLITE, listens=True),
    Neighbour("client-certificates", lambda inbox: iter(()), "mutual", polite=_POLITE, pause=0.0),
)
