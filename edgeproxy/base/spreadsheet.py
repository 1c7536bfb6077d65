"""Files for spreadsheets, with texts from other people."""

import csv
import io
import re
from collections.abc import Iterable, Sequence

FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""The first characters of formulas in spreadsheets, if something follows (CSV injection, CWE-1236).

The list is OWASP's. The last four are the wide forms of the first four, which spreadsheets in Japanese read alike.
"""

DECIMAL = re.compile(r"-?[0-9]+(\.[0-9]+)?").fullmatch


def escape_formula(value: str) -> str:
    """Return a value that no spreadsheet treats as a formula: a possible one gets a leading apostrophe.

    Decimal numbers stay numbers.
    """
    is_formula = value.startswith(FORMULAS) and len(value) > 1 and not DECIMAL(value)
    return f"'{value}" if is_formula else value


def render_csv(rows: Iterable[Sequence[int | str]]) -> str:
    """Return rows as CSV (RFC 4180), with texts protected by `escape_formula`."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    for row in rows:
        writer.writerow([escape_formula(str(cell)) for cell in row])
    return out.getvalue()
