"""The file that maps customers, prices and products at Stripe to our customers and plans. Pure.

stripe,edgeproxy
cus_NffrFeUfNV2Hib,acme
price_1MoBy5LkdIwHu7ix,standard@3
"""

import csv
import io
from collections.abc import Collection, Mapping
from typing import NamedTuple

HEADER = ("stripe", "edgeproxy")
BYTES_MAX = 16 << 20
FAULTS_MAX = 20
"""The most faults that an error lists."""


class MapFileError(Exception):
    """The file is unusable. The message has a line for each fault, with its line and column."""


class MapRow(NamedTuple):
    """Our name in a row, and the number of its line."""

    ours: str
    line: int


def parse_map(text: str, name: str) -> dict[str, MapRow]:
    """Parse a file into rows by Stripe's ids. Raises MapFileError."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: dict[str, MapRow] = {}
    faults: list[str] = []
    try:
        header = tuple(cell.strip() for cell in next(reader, ()))
        if header != HEADER:
            raise MapFileError(f"{name}:1: column 1: the first line is not {','.join(HEADER)}")
        for cells in reader:
            where = f"{name}:{reader.line_num}"
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(HEADER):
                faults.append(
                    f"{where}: column {min(len(cells), len(HEADER)) + 1}: there are {len(cells)} columns, not 2"
                )
                continue
            stripe_id, ours = (cell.strip() for cell in cells)
            if not stripe_id or not ours:
                faults.append(f"{where}: column {HEADER[bool(stripe_id)]}: is empty")
            elif stripe_id in rows:
                faults.append(f"{where}: column stripe: {stripe_id!r} is in line {rows[stripe_id].line} already")
            else:
                rows[stripe_id] = MapRow(ours, reader.line_num)
    except csv.Error as error:
        faults.append(f"{name}:{reader.line_num}: column 1: {error}")
    _raise_faults(faults)
    return rows


def check_map(
    rows: Mapping[str, MapRow],
    name: str,
    *,
    stripe_customers: Collection[str],
    stripe_prices: Collection[str],
    customers: Collection[str],
    plans: Collection[str],
) -> None:
    """Raise MapFileError if a row names an unknown object.

    `stripe_prices` has prices and products, `customers` all names and ids of ours, and `plans` the plans and versions.
    """
    faults = []
    for stripe_id, row in rows.items():
        where = f"{name}:{row.line}: column"
        if stripe_id in stripe_customers:
            if row.ours not in customers:
                faults.append(f"{where} edgeproxy: there is no customer {row.ours!r}")
        elif stripe_id in stripe_prices:
            if row.ours not in plans:
                faults.append(f"{where} edgeproxy: there is no plan {row.ours!r}; there are {', '.join(plans)}")
        else:
            faults.append(f"{where} stripe: the account has no customer, price or product {stripe_id!r}")
    _raise_faults(faults)


def _raise_faults(faults: list[str]) -> None:
    if faults:
        more = [f"and {len(faults) - FAULTS_MAX} more"] if len(faults) > FAULTS_MAX else []
        raise MapFileError("\n".join([*faults[:FAULTS_MAX], *more]))
