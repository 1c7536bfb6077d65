"""The Host that an upstream gets if it is not the client's Host."""

import re
from typing import Final

HOST_LINE: Final = re.compile(rb"^host[ \t]*:[^\r\n]*", re.IGNORECASE | re.MULTILINE)


def replace_host(lines: bytes, host: bytes) -> bytes:
    """Replace the Host of a request's head, or of the lines of its fields; all that follows a head stays."""
    return HOST_LINE.sub(lambda _: b"Host: " + host, lines, count=1)
