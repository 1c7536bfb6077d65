"""The cost that an answer reports in one of its fields."""

import re

from edgeproxy.config.units import COUNT_MAX

DIGITS_MOST = 18
"""Digits of a cost that are read; longer numbers exceed any limit."""


def cost_pattern(name: str) -> re.Pattern[bytes]:
    """Return a pattern for a whole number in the field of this name within a head; its group is the number."""
    return re.compile(rb"(?i)\r\n%b:[ \t]*([0-9]+)[ \t]*\r\n" % re.escape(name.encode()))


def parse_cost(head: bytes, field: re.Pattern[bytes]) -> int | None:
    """Parse the cost that a head reports in this field: its first whole number, up to COUNT_MAX. None without one."""
    match = field.search(head)
    if match is None:
        return None
    digits = match[1].lstrip(b"0")
    return min(int(digits or b"0"), COUNT_MAX) if len(digits) < DIGITS_MOST else COUNT_MAX
