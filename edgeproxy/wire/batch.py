"""Batches: sealed counts of one edge, and the exact bytes of their transport. Pure. Edge and collector share it.

A body is one JSON object of version 1 in this form:

    {"edge": ID, "region": NAME, "seq": N, "from": UNIX, "to": UNIX, "prev": HASH,
     "rows": [[customer, meter, route, value], …]}

A row with dimensions has them as a fifth part: `{"model": "m1"}`.

`seq` counts from 1 for the life of an edge's identity. `prev` is the SHA-256 of the previous body (FIRST for the
first). Counts belong to the minute of `from`. `"long": true` marks a span beyond that minute. Instead of `rows`,
`"gap": {"from_seq", "to_seq", "why"}` admits that batches are lost for good. The `seq` of a gap is `from_seq`, the next
batch has `to_seq + 1`, and `prev` may be FIRST if that hash is lost too.

A later version adds `"version": N`, and readers that do not know it refuse the body. They also refuse unknown fields,
because these could change the meaning of the others.
"""

import hashlib
import re
from functools import lru_cache
from typing import NamedTuple

import orjson

from edgeproxy.config import dimensions
from edgeproxy.config.dimensions import DIMENSIONS_MAX, is_dimensions, is_formatted

VERSION = 1
FIRST = "0" * 64
"""`prev` of the first batch."""
ROWS_MAX = 20_000
"""Maximum rows of a batch. More rows are split into several batches."""
BODY_BYTES_MAX = 16 << 20
"""Maximum bytes of a body: enough for ROWS_MAX of the longest names, or for all counts of an edge (TALLY_KEY_BYTES)."""
NUMBER_MAX = (1 << 63) - 1
"""The largest value, and the largest seq."""
UNIX_SECONDS_MAX = 253_402_300_799
"""The last second of the year 9999, the last with four digits."""
ROUTE_CHARACTERS_MAX = 255
WHY_CHARACTERS_MAX = 500
MINUTE_SECONDS = 60
FIELD_CHARACTERS_SHOWN = 20
PROBLEMS_SHOWN_MAX = 20
"""Maximum problems in an InvalidBatchError."""

SMALL_BYTES = 256 << 10
"""Bytes of a body whose values take at most some megabytes, whatever it contains."""
STRING_BYTES_MAX = 4000
"""Maximum bytes of a string in a body, as written in JSON: a `why` whose characters are all escaped."""
STRUCTURE_MAX = {b"[": ROWS_MAX + 1, b"{": ROWS_MAX + 2, b",": (4 + DIMENSIONS_MAX) * ROWS_MAX + 16}
"""Maximum number of each character outside of strings."""
QUOTES_MAX = (6 + 4 * DIMENSIONS_MAX) * ROWS_MAX + 64
"""Maximum number of quotes."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
ROUTE = re.compile(rf"[!-~]{{1,{ROUTE_CHARACTERS_MAX}}}")
HASH = re.compile(r"[0-9a-f]{64}")
ANONYMOUS = "-"
"""The customer of requests without a key."""

Row = tuple[str, str, str, int] | tuple[str, str, str, int, str]
"""Customer, meter, route, the increase of the count, and the text of its dimensions, if any."""
CountKey = tuple[str, str, str, str]
"""Customer, meter, route and the text of the dimensions, which may be empty."""

REQUIRED_FIELDS = ("edge", "region", "seq", "from", "to", "prev")
KNOWN_FIELDS = {*REQUIRED_FIELDS, "rows", "gap", "long", "version"}
GAP_FIELDS = {"from_seq", "to_seq", "why"}


class InvalidBatchError(Exception):
    """An invalid body. `problems` has at most PROBLEMS_SHOWN_MAX sentences about it."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = tuple(problems[:PROBLEMS_SHOWN_MAX])
        super().__init__("; ".join(self.problems))


class Gap(NamedTuple):
    """Batches that are lost for good, both ends included, and the reason."""

    from_seq: int
    to_seq: int
    why: str


class Batch(NamedTuple):
    """One edge's counts from `since` to `until`, in Unix seconds. A gap has no `rows`."""

    edge: str
    region: str
    seq: int
    since: int
    until: int
    prev: str
    rows: tuple[Row, ...] = ()
    gap: Gap | None = None
    long: bool = False

    @property
    def minute(self) -> int:
        """The first Unix second of the minute of its rows."""
        return self.since - self.since % MINUTE_SECONDS

    @property
    def last(self) -> int:
        """The last seq that the batch covers."""
        return self.seq if self.gap is None else self.gap.to_seq


def count_key(row: Row) -> CountKey:
    """Return the key of the count that a row increases."""
    return (row[0], row[1], row[2], row[4] if len(row) == 5 else "")


def build_row(key: CountKey, value: int) -> Row:
    """Return the row of an increase by `value`."""
    customer, meter, route, split = key
    return (customer, meter, route, value, split) if split else (customer, meter, route, value)


def is_long(since: int, until: int) -> bool:
    """Return whether a span extends beyond one minute. The end of the minute belongs to it."""
    return until > since - since % MINUTE_SECONDS + MINUTE_SECONDS


def format_batch(batch: Batch) -> bytes:
    """Format a batch as bytes, with sorted rows. Raises InvalidBatchError if it is invalid."""
    faults = _find_faults(batch)
    if faults:
        raise InvalidBatchError(faults)
    document: dict[str, object] = {
        "edge": batch.edge,
        "region": batch.region,
        "seq": batch.seq,
        "from": batch.since,
        "to": batch.until,
        "prev": batch.prev,
    }
    if batch.long:
        document["long"] = True
    if batch.gap is None:
        rows = sorted(batch.rows)
        document["rows"] = [(*row[:4], dimensions.parse_dimensions(row[4])) if len(row) == 5 else row for row in rows]
    else:
        document["gap"] = batch.gap._asdict()
    return orjson.dumps(document)


def compute_digest(body: bytes) -> str:
    """Return the SHA-256 of a body in hex, for `prev` of the next one."""
    return hashlib.sha256(body).hexdigest()


def format_headers(batch: Batch, body: bytes) -> dict[str, str]:
    """Return the header fields that are sent with a body."""
    return {"Edge-Id": batch.edge, "Edge-Seq": str(batch.seq), "Edge-Hash": compute_digest(body)}


def parse_batch(body: bytes) -> Batch:
    """Parse a batch. Raises only InvalidBatchError, if these bytes are invalid."""
    if len(body) > BODY_BYTES_MAX:
        raise InvalidBatchError([f"is larger than {BODY_BYTES_MAX >> 20} MiB"])
    if len(body) > SMALL_BYTES and not is_sparse(body):
        raise InvalidBatchError([f"is no list of {ROWS_MAX} rows at most"])
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidBatchError([f"is not JSON: {error}"]) from None
    if not isinstance(document, dict):
        raise InvalidBatchError(["is not a JSON object"])
    version = document.get("version", VERSION)
    if type(version) is not int or version != VERSION:
        raise InvalidBatchError([f"is of another version than {VERSION}"])
    faults = [f"has no {field}" for field in REQUIRED_FIELDS if field not in document]
    faults += [
        f"has an unknown field {field[:FIELD_CHARACTERS_SHOWN]!r}" for field in document if field not in KNOWN_FIELDS
    ]
    if ("rows" in document) == ("gap" in document):
        faults.append("has both rows and a gap" if "rows" in document else "has neither rows nor a gap")
    rows = _parse_rows(document.get("rows", []), faults)
    gap = _parse_gap(document["gap"], faults) if "gap" in document else None
    if faults:
        raise InvalidBatchError(faults)
    edge, region, seq, since, until, prev = (document[field] for field in REQUIRED_FIELDS)
    batch = Batch(edge, region, seq, since, until, prev, rows, gap, document.get("long", False))
    faults = _find_faults(batch)
    if faults:
        raise InvalidBatchError(faults)
    return batch


def is_sparse(body: bytes) -> bool:
    """Return whether a body has no more structure and no longer strings than a batch may have.

    A JSON value takes up to thirty times as much memory as its text, and zstd compresses millions of equal values to
    almost nothing. Bodies that are refused here are not parsed.
    """
    # Escaped quotes are not delimiters, and an escaped backslash escapes nothing.
    unescaped = body.replace(rb"\\", b"").replace(rb"\"", b"")
    if unescaped.count(b'"') > QUOTES_MAX:
        return False
    pieces = unescaped.split(b'"')
    if max(map(len, pieces[1::2]), default=0) > STRING_BYTES_MAX:
        return False
    outside = b" ".join(pieces[::2])
    return all(outside.count(sign) <= most for sign, most in STRUCTURE_MAX.items())


def _parse_rows(rows: object, faults: list[str]) -> tuple[Row, ...]:
    """Parse the rows of a JSON document. Their values are checked later."""
    if not isinstance(rows, list) or not all(type(row) is list and len(row) in (4, 5) for row in rows):
        faults.append("has rows that are no list of [customer, meter, route, value], or of these and dimensions")
        return ()
    if all(len(row) == 4 for row in rows):
        return tuple([(customer, meter, route, value) for customer, meter, route, value in rows])
    for index, row in enumerate(rows):
        if len(row) == 5 and not is_dimensions(row[4]):
            faults.append(f"has dimensions in row {index} that are none")
            return ()
    return tuple([(*row[:4], dimensions.format_dimensions(row[4])) if len(row) == 5 else (*row,) for row in rows])


def _parse_gap(value: object, faults: list[str]) -> Gap | None:
    if not isinstance(value, dict) or value.keys() != GAP_FIELDS:
        faults.append("has a gap that is not {from_seq, to_seq, why}")
        return None
    return Gap(**value)


def _find_faults(batch: Batch) -> list[str]:
    """Find faults in the values of a batch and their types."""
    faults = [f"has no name for its {name}" for name in ("edge", "region") if not _is_name(getattr(batch, name))]
    if not _is_between(1, batch.seq, NUMBER_MAX):
        faults.append("has a seq that is no whole number from 1")
    if not (_is_between(0, batch.since, UNIX_SECONDS_MAX) and _is_between(0, batch.until, UNIX_SECONDS_MAX)):
        faults.append("has a from or a to that is no whole number of Unix seconds")
    elif batch.until < batch.since:
        faults.append("ends before it begins")
    if not (isinstance(batch.prev, str) and HASH.fullmatch(batch.prev)):
        faults.append("has a prev that is not 64 hex digits in lower case")
    if type(batch.long) is not bool:
        faults.append("has a long that is neither true nor false")
    if batch.gap is not None:
        faults += _find_gap_faults(batch, batch.gap)
    if len(batch.rows) > ROWS_MAX:
        faults.append(f"has more than {ROWS_MAX} rows")
    else:
        faults += _find_row_faults(batch.rows)
    return faults


def _find_gap_faults(batch: Batch, gap: Gap) -> list[str]:
    faults = []
    if batch.rows:
        faults.append("has both rows and a gap")
    if not (_is_between(1, gap.from_seq, NUMBER_MAX) and _is_between(1, gap.to_seq, NUMBER_MAX)):
        faults.append("has a gap whose ends are no whole numbers from 1")
    elif gap.from_seq != batch.seq or gap.to_seq < gap.from_seq:
        faults.append("has a gap that does not begin with its seq, or that ends before it begins")
    if not (isinstance(gap.why, str) and 1 <= len(gap.why) <= WHY_CHARACTERS_MAX and gap.why.isprintable()):
        faults.append(f"has a gap without a why of 1 to {WHY_CHARACTERS_MAX} printable characters")
    return faults


def _find_row_faults(rows: tuple[Row, ...]) -> list[str]:
    """Find faults of rows. As this is the hot part of reading, single values are checked only after a failure."""
    for customer, meter, route, value, *split in rows:
        # Names are checked first: they recur, and the results are cached.
        if not (
            _is_name_or_anonymous(customer) and _is_name_or_anonymous(meter) and _is_route(route) and type(value) is int
        ):
            break
        if not 0 < value <= NUMBER_MAX or meter == ANONYMOUS or (split and not is_formatted(split[0])):
            break
    else:
        return []
    faults = []
    for index, (customer, meter, route, value, *split) in enumerate(rows):
        if not _is_name(customer) and customer != ANONYMOUS:
            faults.append(f"has a customer in row {index} that is no name")
        if not _is_name(meter):
            faults.append(f"has a meter in row {index} that is no name")
        if not (isinstance(route, str) and ROUTE.fullmatch(route)):
            faults.append(f"has a route in row {index} that is none")
        if not _is_between(1, value, NUMBER_MAX):
            faults.append(f"has a value in row {index} that is no whole number from 1 to 2^63 - 1")
        if split and not is_formatted(split[0]):
            faults.append(f"has dimensions in row {index} that are none")
        if len(faults) >= PROBLEMS_SHOWN_MAX:
            break
    return faults


def _is_between(lowest: int, value: object, highest: int) -> bool:
    return type(value) is int and lowest <= value <= highest


def _is_name(value: object) -> bool:
    return isinstance(value, str) and NAME.fullmatch(value) is not None


CACHED_CHARACTERS_MAX = max(64, ROUTE_CHARACTERS_MAX)
"""Maximum characters of cached names and routes. Longer text is neither."""


def _is_name_or_anonymous(value: object) -> bool:
    return isinstance(value, str) and len(value) <= CACHED_CHARACTERS_MAX and _is_short_name_or_anonymous(value)


@lru_cache(1 << 16)
def _is_short_name_or_anonymous(value: str) -> bool:
    return value == ANONYMOUS or _is_name(value)


def _is_route(value: object) -> bool:
    return isinstance(value, str) and len(value) <= CACHED_CHARACTERS_MAX and _is_short_route(value)


@lru_cache(1 << 16)
def _is_short_route(value: str) -> bool:
    return ROUTE.fullmatch(value) is not None
