"""The first message of a client under TLS: whether it wants a protocol that is not spoken here.

OpenSSL, as Python has it, goes on without a protocol where the client offers none that is spoken here (ALPN). The
client would then be sent answers that it cannot read, where RFC 7301 section 3.2 wants a handshake that fails.
"""

from edgeproxy.base.client_tls import HTTP2, HTTP11

HTTP10 = "http/1.0"
SPOKEN = frozenset((HTTP11.encode(), HTTP10.encode()))
"""The protocols that a client may offer. `curl --http1.0` offers the second alone."""
SPOKEN_WITH_HTTP2 = SPOKEN | {HTTP2.encode()}
"""The same where the listener speaks HTTP/2."""

NO_APPLICATION_PROTOCOL = b"\x15\x03\x03\x00\x02\x02\x78"
"""A record with the fatal alert of that name (RFC 7301 section 3.2)."""

HANDSHAKE, CLIENT_HELLO, ALPN = b"\x16", b"\x01", b"\x00\x10"


def is_first_record_complete(data: bytes) -> bool:
    """Return whether the first record is all there, or no part of it is worth waiting for. One often takes two
    packets."""
    return data[:1] != HANDSHAKE or 5 <= len(data) >= 5 + _parse_number(data, 3, 2)


def parse_alpn_offers(data: bytes) -> list[bytes] | None:
    """Return the protocols that a ClientHello names, or None: it names none, or is not all there, or is none at all.

    Reads what a client's first bytes hold (RFC 8446 section 4.1.2), in one record; others are left to OpenSSL, which
    judges every byte of it in any case.
    """
    if data[:1] != HANDSHAKE or data[5:6] != CLIENT_HELLO:
        return None
    end = 5 + _parse_number(data, 3, 2)
    # Type and length of the message, version, random; then session id, cipher suites, compression methods.
    at = 5 + 4 + 2 + 32
    for size in (1, 2, 1):
        at += size + _parse_number(data, at, size)
    at += 2
    while at + 4 <= end <= len(data):
        kind, length = data[at : at + 2], _parse_number(data, at + 2, 2)
        at += 4
        if kind == ALPN:
            return _parse_names(data[at + 2 : at + length])
        at += length
    return None


def _parse_number(data: bytes, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "big")


def _parse_names(listed: bytes) -> list[bytes]:
    names: list[bytes] = []
    while listed:
        length = 1 + listed[0]
        names.append(listed[1:length])
        listed = listed[length:]
    return names
