"""Files for spreadsheets, with texts from other people."""

import csv
import io
import re
from collections.abc import Iterable, Sequence

FORMULAS = ("=", "+", "-", "@", "\t", "\r")
"""The first characters of formulas in spreadsheets, if something follows (CSV injection, CWE-1236)."""

DECIMAL = re.compile(r"-?[0-9]+(\.[0-9]+)?").fullmatch


def escape_formula(value: str) -> str:
    """Return a value that spreadsheets treat as text. A possible formula gets a leading apostrophe."""
    return f"'{value}" if value.startswith(FORMULAS) and len(value) > 1 else value


def render_csv(rows: Iterable[Sequence[int | str]]) -> str:
    """Return rows as CSV (RFC 4180), with texts protected by `escape_formula`. Decimal numbers stay numbers."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    for row in rows:
        writer.writerow([cell if isinstance(cell, int) or DECIMAL(cell) else escape_formula(cell) for cell in row])
    return out.getvalue()
