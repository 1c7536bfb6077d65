"""All rows, with their families."""

from collections.abc import Sequence
from typing import TypeVar

from tests.contract.case import Answered, Asked
from tests.contract.play import Play
from tests.contract.tables.abuse import SLOW as SLOW_ROWS
from tests.contract.tables.answers import ANSWERS
from tests.contract.tables.bodies import CHUNKS, LENGTHS, PERSISTENCE
from tests.contract.tables.faults import EXCESS, FAULTS
from tests.contract.tables.fields import FIELDS
from tests.contract.tables.hops import HOPS_OF_ANSWERS, HOPS_OF_REQUESTS
from tests.contract.tables.smuggling import CODINGS, ENDS, LENGTH_AND_CODING, READ_OVER
from tests.contract.tables.smuggling import LENGTHS as ODD_LENGTHS
from tests.contract.tables.spoofing import SPOOFING
from tests.contract.tables.start_line import START_LINE
from tests.contract.tables.streams import STREAMS
from tests.contract.tables.targets import TARGETS
from tests.contract.tables.tunnels import TUNNELS

Row = TypeVar("Row", Asked, Answered, Play)
Rows = tuple[tuple[str, Row], ...]
"""(family, row), in the order of the tables."""


def rows(**families: Sequence[Row]) -> Rows[Row]:
    """Return the rows of these families. Names must be unique within a family."""
    for family, own in families.items():
        names = [row.name for row in own]
        twice = {name for name in names if names.count(name) > 1}
        assert not twice, f"{family} has two rows each of these names: {sorted(twice)}"
    return tuple((family, row) for family, own in families.items() for row in own)


ASKED: Rows[Asked] = rows(
    start_line=START_LINE,
    targets=TARGETS,
    fields=FIELDS,
    lengths=LENGTHS,
    chunks=CHUNKS,
    persistence=PERSISTENCE,
    length_and_coding=LENGTH_AND_CODING,
    codings=CODINGS,
    odd_lengths=ODD_LENGTHS,
    ends=ENDS,
    read_over=READ_OVER,
    hops=HOPS_OF_REQUESTS,
    spoofing=SPOOFING,
)
ANSWERED: Rows[Answered] = rows(answers=ANSWERS, faults=FAULTS, excess=EXCESS, hops=HOPS_OF_ANSWERS)
PLAYS: Rows[Play] = rows(streams=STREAMS, tunnels=TUNNELS)
SLOW: Rows[Play] = rows(abuse=SLOW_ROWS)
AT_ONCE = frozenset(id(row) for row in (*EXCESS, *READ_OVER))
"""Rows that run in one piece only, because their result depends on bytes that arrive together."""
