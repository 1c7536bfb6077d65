"""The Host that an upstream gets where that is not what the client sent."""

import re
from typing import Final

HOST_LINE: Final = re.compile(rb"^host[ \t]*:[^\r\n]*", re.IGNORECASE | re.MULTILINE)


def replace_host(lines: bytes, host: bytes) -> bytes:
    """A request's head, or the lines of its fields, with this in the place of its Host; what follows a head stays."""
    return HOST_LINE.sub(lambda _: b"Host: " + host, lines, count=1)
