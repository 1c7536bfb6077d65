"""Octets that are UTF-8 (RFC 3629), or are not in the one way or another: the groups 6.5 to 6.23 of Autobahn's cases.

They are Markus Kuhn's stress test for decoders.
"""

KOSME = "κόσμε".encode()
CUT_SHORT = (
    *(b"\xc0", b"\xe0\x80", b"\xf0\x80\x80", b"\xf8\x80\x80\x80", b"\xfc\x80\x80\x80\x80"),
    *(b"\xdf", b"\xef\xbf", b"\xf7\xbf\xbf", b"\xfb\xbf\xbf\xbf", b"\xfd\xbf\xbf\xbf\xbf"),
)


def with_spaces(first: int, last: int) -> bytes:
    """Each octet of a range followed by a space."""
    return b"".join(bytes((octet, 0x20)) for octet in range(first, last))


def non_characters() -> tuple[bytes, ...]:
    """The last two code points of each plane: valid in UTF-8."""
    planes = [plane << 16 | low for plane in range(17) for low in (0xFFFE, 0xFFFF)]
    return tuple(chr(point).encode() for point in planes)


SEQUENCES: tuple[tuple[bytes, ...], ...] = (
    # 6.5 on: valid text; every prefix of some; first and last sequences of a length; other boundaries
    (b"hello\x24world", b"hello\xc2\xa2world", b"hello\xe2\x82\xacworld", b"hello\xf0\xa4\xad\xa2world", KOSME),
    tuple(KOSME[:end] for end in range(1, len(KOSME) + 1)),
    (b"\x00", b"\xc2\x80", b"\xe0\xa0\x80", b"\xf0\x90\x80\x80"),
    (b"\xf8\x88\x80\x80\x80", b"\xfc\x84\x80\x80\x80\x80"),
    (b"\x7f", b"\xdf\xbf", b"\xef\xbf\xbf", b"\xf4\x8f\xbf\xbf"),
    (b"\xf7\xbf\xbf\xbf", b"\xfb\xbf\xbf\xbf\xbf", b"\xfd\xbf\xbf\xbf\xbf\xbf"),
    (b"\xed\x9f\xbf", b"\xee\x80\x80", b"\xef\xbf\xbd", b"\xf4\x8f\xbf\xbf", b"\xf4\x90\x80\x80"),
    # 6.12 on: continuation octets alone; starts alone; the last octet missing; all of these; impossible octets
    (b"\x80", b"\xbf", *((b"\x80\xbf" * 3)[:size] for size in range(2, 7)), bytes(range(0x80, 0xBF))),
    tuple(with_spaces(*ends) for ends in ((192, 223), (224, 239), (240, 247), (248, 251), (252, 253))),
    CUT_SHORT,
    (b"".join(CUT_SHORT),),
    (b"\xfe", b"\xff", b"\xfe\xfe\xff\xff"),
    # 6.17 on: longer than need be
    (b"\xc0\xaf", b"\xe0\x80\xaf", b"\xf0\x80\x80\xaf", b"\xf8\x80\x80\x80\xaf", b"\xfc\x80\x80\x80\x80\xaf"),
    (b"\xc1\xbf", b"\xe0\x9f\xbf", b"\xf0\x8f\xbf\xbf", b"\xf8\x87\xbf\xbf\xbf", b"\xfc\x83\xbf\xbf\xbf\xbf"),
    (b"\xc0\x80", b"\xe0\x80\x80", b"\xf0\x80\x80\x80", b"\xf8\x80\x80\x80\x80", b"\xfc\x80\x80\x80\x80\x80"),
    # 6.20 on: surrogates alone and in pairs; non-characters; specials
    tuple(
        b"\xed" + rest
        for rest in (b"\xa0\x80", b"\xad\xbf", b"\xae\x80", b"\xaf\xbf", b"\xb0\x80", b"\xbe\x80", b"\xbf\xbf")
    ),
    tuple(
        b"\xed" + high + b"\xed" + low
        for high in (b"\xa0\x80", b"\xad\xbf", b"\xae\x80", b"\xaf\xbf")
        for low in (b"\xb0\x80", b"\xbf\xbf")
    ),
    non_characters(),
    tuple(chr(point).encode() for point in range(0xFFF9, 0x10000)),
)
"""Group after group, in the order of their numbers."""


def valid(payload: bytes) -> bool:
    """Return whether it is UTF-8 (RFC 3629), by Python's decoder."""
    try:
        payload.decode()
    except UnicodeDecodeError:
        return False
    return True
