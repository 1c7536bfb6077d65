"""The lines of the stamps (config/edge/stamps.py) in heads for upstreams."""

from functools import lru_cache

from edgeproxy.config.edge.stamps import STAMPS, StampValues
from edgeproxy.edge.http1.grammar import parse_field_name


def format_lines(binding: StampValues) -> bytes:
    """Format the lines of all stamps that do not change between requests of a route binding, each with its CRLF."""
    values = [(name, value(binding)) for name, value in STAMPS.items() if value is not None]
    return b"".join([b"%b: %b\r\n" % (name, value.encode()) for name, value in values if value is not None])


@lru_cache(maxsize=4096)
def append_empty(block: bytes) -> bytes:
    """Append an empty line for each stamp that `format_lines` left out of this block: a server that overwrites fields
    with these lines then overwrites a client's too.
    """
    present = {parse_field_name(line) for line in block.split(b"\r\n")}
    missing = [name for name, value in STAMPS.items() if value is not None and name.lower() not in present]
    return block + b"".join([b"%b: \r\n" % name for name in missing])


def format_opening(name: bytes) -> bytes:
    """Format the line of a stamp up to its value. Raises ValueError if clients could send this field too."""
    if name not in STAMPS:
        raise ValueError(f"{name.decode()} is no stamp: clients could send it too")
    return name + b": "
