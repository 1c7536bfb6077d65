"""HTTP/2 frames (RFC 9113 section 4.1) and field blocks without Huffman code, as an attacker writes them."""

from struct import pack

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PING, WINDOW_UPDATE = 0, 1, 2, 3, 4, 6, 8
END_STREAM, ACK, END_HEADERS = 1, 1, 4
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
LARGEST_WINDOW = (1 << 31) - 1


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    """A frame; nothing about it is checked."""
    return pack(">I", len(payload))[1:] + bytes((kind, flags)) + pack(">I", stream) + payload


def window(stream: int, octets: int) -> bytes:
    """A WINDOW_UPDATE."""
    return frame(WINDOW_UPDATE, 0, stream, pack(">I", octets))


def preface(first_window: int = LARGEST_WINDOW) -> bytes:
    """The beginning of a client's connection: streams of `first_window` octets, a connection that never fills."""
    settings = frame(SETTINGS, 0, 0, pack(">HI", 4, first_window))
    return PREFACE + settings + window(0, LARGEST_WINDOW - 65535)


def literal(name: bytes, value: bytes) -> bytes:
    """A field that enters no table (RFC 7541 section 6.2.2); both parts are shorter than 127 octets."""
    return b"\x00" + bytes((len(name),)) + name + bytes((len(value),)) + value


def request(path: bytes, *, post: bool = False, fields: bytes = b"") -> bytes:
    """The field block of a request for `path`."""
    return (b"\x83" if post else b"\x82") + b"\x86\x04" + bytes((len(path),)) + path + b"\x01\x01a" + fields


def ask(stream: int, path: bytes, *, post: bool = False, fields: bytes = b"", ends: bool | None = None) -> bytes:
    """The HEADERS of a request; it ends the stream unless a body follows (`post`), or as `ends` says."""
    flags = END_HEADERS | (END_STREAM if (not post if ends is None else ends) else 0)
    return frame(HEADERS, flags, stream, request(path, post=post, fields=fields))
