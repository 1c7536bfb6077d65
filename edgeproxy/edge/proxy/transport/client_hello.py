"""The first message of a client under TLS: its offered protocols.

Python's OpenSSL continues without a protocol if the client offers only unsupported ones (ALPN). The client would then
get answers that it cannot read. RFC 7301 section 3.2 requires the handshake to fail instead.
"""

from edgeproxy.base.client_tls import HTTP2, HTTP11

HTTP10 = "http/1.0"
SPOKEN = frozenset((HTTP11.encode(), HTTP10.encode()))
"""The protocols that a client may offer. `curl --http1.0` offers only the second."""
SPOKEN_WITH_HTTP2 = SPOKEN | {HTTP2.encode()}
"""The offers that a listener with HTTP/2 accepts."""

ACME_TLS = "acme-tls/1"
"""The only protocol that an authority offers when it checks a challenge (RFC 8737 section 4)."""

NO_APPLICATION_PROTOCOL = b"\x15\x03\x03\x00\x02\x02\x78"
"""A record with the fatal alert of that name (RFC 7301 section 3.2)."""

HANDSHAKE, CLIENT_HELLO, ALPN = b"\x16", b"\x01", b"\x00\x10"


def is_first_record_complete(data: bytes) -> bool:
    """Return whether the first record is complete, or not worth waiting for. A record often takes two packets."""
    return data[:1] != HANDSHAKE or 5 <= len(data) >= 5 + _parse_number(data, 3, 2)


def parse_alpn_offers(data: bytes) -> list[bytes] | None:
    """Return the protocols that a ClientHello names; None if it names none, is incomplete, or is not a ClientHello.

    Reads a ClientHello (RFC 8446 section 4.1.2) in one record. OpenSSL handles all others, and checks every byte
    anyway.
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
