"""The country of an address, by a database of the operator: lines of FIRST,LAST,COUNTRY, both addresses included.

It is the form of DB-IP's free database, among others.
"""

import csv
import re
from bisect import bisect_right
from pathlib import Path

from edgeproxy.base.addresses import IP, parse_ip

CODE = re.compile(r"[A-Z]{2}")
UNKNOWN = ("XX", "ZZ")
"""Codes that stand for no country (ISO 3166-1 leaves them to their users)."""


class InvalidCountryDatabaseError(Exception):
    """A database cannot be used; the text says where and why."""


def parse_country_code(written: str | None) -> str | None:
    """Parse the country code of a proxy's header or a database; None if it names no country."""
    return written if written is not None and CODE.fullmatch(written) and written not in UNKNOWN else None


class Countries:
    """The country database: spans of addresses, in order."""

    def __init__(self, file: Path) -> None:
        """Read the file; raises InvalidCountryDatabaseError."""
        spans: list[tuple[int, int, int, str]] = []
        try:
            with file.open(newline="", encoding="ascii") as lines:
                for number, line in enumerate(csv.reader(lines), 1):
                    ends = [parse_ip(end) for end in line[:2]]
                    if len(line) < 3 or len(ends) < 2 or ends[0] is None or ends[1] is None:
                        raise InvalidCountryDatabaseError(f"{file}:{number}: is no FIRST,LAST,COUNTRY")
                    if ends[0].version != ends[1].version or int(ends[0]) > int(ends[1]):
                        raise InvalidCountryDatabaseError(f"{file}:{number}: the span ends before it begins")
                    if (code := parse_country_code(line[2])) is not None:
                        spans.append((ends[0].version, int(ends[0]), int(ends[1]), code))
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidCountryDatabaseError(
                f"{file} cannot be read: {getattr(error, 'strerror', None) or error}"
            ) from None
        spans.sort()
        self._begins = [(version, first) for version, first, _, _ in spans]
        self._ends = [last for _, _, last, _ in spans]
        self._codes = [code for _, _, _, code in spans]

    def find_country(self, address: IP) -> str | None:
        """Find the country of an address; None if no line covers it."""
        place = bisect_right(self._begins, (address.version, int(address))) - 1
        if place < 0 or self._begins[place][0] != address.version or int(address) > self._ends[place]:
            return None
        return self._codes[place]
