"""The edge reads heads as llhttp does, except for the intended differences in tests/edge/http1/stance.py."""

from collections import Counter
from collections.abc import Callable, Iterator
from random import Random

import pytest

from edgeproxy.edge.errors import UpstreamError
from edgeproxy.edge.http1.fields import REQUEST, FieldKind
from edgeproxy.edge.http1.request import PLAIN, read_fields
from edgeproxy.edge.http1.response import NOT_PLAIN, read_plain_response
from tests.edge.http1 import oracle, stance
from tests.edge.http1.corpus import REQUESTS, RESPONSES
from tests.edge.http1.mutants import REQUEST_LINES, STATUS_LINES, mutants
from tests.edge.http1.oracle import CHUNKED, UNTIL_CLOSE, Outcome, Reading, Rejected, Request, Response, Unfinished
from tests.edge.http1.stance import COMMON, Different, Looser, Stance, Stricter

MUTATED_REQUESTS = 12_500
MUTATED_RESPONSES = 6_000
IN_THE_NIGHT, IN_A_SOAK = 4, 80
"""Factors for the number of heads in longer runs."""

Read = Callable[[bytes], Request | Response | Rejected | Unfinished]
Hear = Callable[[bytes], Outcome]

DIRECTIONS: dict[str, tuple[Stance, Read, Hear]] = {
    "request": (stance.REQUESTS, oracle.our_request, oracle.their_request),
    "response": (stance.RESPONSES, oracle.our_response, oracle.their_response),
}


def read_by_us(head: bytes, read: Read) -> Outcome:
    """Return the edge's outcome for a head as a Reading."""
    ours = read(head)
    return ours.reading() if isinstance(ours, Request | Response) else ours


# ---- mutated heads


@pytest.fixture
def times(pytestconfig: pytest.Config) -> int:
    """The factor for the numbers of heads."""
    if pytestconfig.getoption("soak"):
        return IN_A_SOAK
    return IN_THE_NIGHT if pytestconfig.getoption("properties") else 1


def test_no_mutated_request_is_read_differently(seed: int, times: int) -> None:
    heads = mutants(Random(seed), REQUESTS, REQUEST_LINES, MUTATED_REQUESTS * times)
    read_alike = 0
    for ours, reading in compared("request", heads, seed):
        assert isinstance(ours, Request)
        read_alike += 1
        quick_agrees(ours)
        method = ours.line.method if ours.line.method in COMMON else b"GET"
        forwarded = oracle.their_request(ours._replace(line=ours.line._replace(method=method)).forwarded())
        assert isinstance(forwarded, Reading), (seed, ours)
        assert forwarded.start == (method, ours.line.target), (seed, ours)
        assert (forwarded.version, forwarded.body) == ("1.1", reading.body), (seed, ours)
        assert forwarded.upgrade == reading.upgrade, (seed, ours)
        assert_nothing_forged(forwarded, ours)
    assert read_alike > MUTATED_REQUESTS * times // 10


def test_no_mutated_response_is_read_differently(seed: int, times: int) -> None:
    heads = mutants(Random(seed), RESPONSES, STATUS_LINES, MUTATED_RESPONSES * times)
    read_alike = 0
    for ours, reading in compared("response", heads, seed):
        assert isinstance(ours, Response)
        read_alike += 1
        plain_agrees(ours)
        forwarded = oracle.their_response(ours.forwarded())
        assert isinstance(forwarded, Reading), (seed, ours)
        assert (forwarded.start, forwarded.version) == (reading.start, "1.1"), (seed, ours)
        # The caller adds the framing of a body without a length.
        framed = reading.body if reading.body >= 0 else UNTIL_CLOSE
        assert forwarded.body == framed, (seed, ours)
    assert read_alike > MUTATED_RESPONSES * times // 10


def compared(
    direction: str, heads: Iterator[bytes], seed: int
) -> Iterator[tuple[Request | Response | Rejected | Unfinished, Reading]]:
    """Yield each accepted head with the edge's reading, after llhttp's reading was compared."""
    attitude, read, hear = DIRECTIONS[direction]
    unexcused: list[str] = []
    outcomes: Counter[str] = Counter()
    for head in heads:
        ours = read(head)
        reading = ours.reading() if isinstance(ours, Request | Response) else ours
        theirs = hear(head)
        excuses = attitude.excuses(reading, theirs, head)
        if excuses is None:
            unexcused.append(f"{head!r}\n  ours   {reading}\n  theirs {theirs}")
            continue
        outcomes.update(excuses or [f"{type(reading).__name__}, llhttp: {type(theirs).__name__}"])
        if isinstance(reading, Reading):
            yield ours, reading
    print(
        f"EDGEPROXY_SEED={seed}, {direction}s:",
        *(f"{number:7} {name}" for name, number in outcomes.most_common()),
        sep="\n",
    )
    assert not unexcused, f"EDGEPROXY_SEED={seed}: {len(unexcused)} heads, among them\n" + "\n".join(unexcused[:5])


def quick_agrees(ours: Request) -> None:
    """Assert that the quick reader agrees with the full reader."""
    if ours.line.version != (1, 1):
        return
    head = ours.head
    *summary, quick = read_fields(ours.block)
    assert summary == [head.host, head.key, head.credentials, head.keep, head.length, head.trace], ours.block
    assert (quick is PLAIN) == head.plain
    assert quick is PLAIN or vars(quick) == vars(head), ours.block


def plain_agrees(ours: Response) -> None:
    """Assert that the quick reader agrees with the full reader or leaves the head to it."""
    head = ours.head
    try:
        plain = read_plain_response(ours.block)
    except UpstreamError:
        pytest.fail(f"a head that is read with care is a fault at a glance: {ours.block!r}")
    if plain != NOT_PLAIN:
        length = 0 if head.bodiless else head.length
        assert plain == (head.status, length, head.keep, head.rate, head.flags, head.dated), ours.block
        assert (head.minor, head.chunked, head.close, head.upgrade) == (1, False, False, None), ours.block


NEVER_FORWARDED = frozenset(
    name
    for name, kind in REQUEST.items()
    if kind
    in (
        FieldKind.HOP,
        FieldKind.STAMP,
        FieldKind.ORIGIN,
        FieldKind.API_KEY,
        FieldKind.TE,
        FieldKind.FORWARDED_FOR,
        FieldKind.FORWARDED_PROTO,
    )
)


def assert_nothing_forged(forwarded: Reading, ours: Request) -> None:
    """Assert that no forwarded field is reserved for the edge."""
    names = Counter(name for name, _ in forwarded.fields)
    for name in names:
        assert name.replace(b"_", b"-") not in NEVER_FORWARDED, ours
    assert names[b"host"] <= 1, ours
    assert names[b"content-length"] + names[b"transfer-encoding"] == (ours.head.has_length or ours.head.chunked), ours
    assert names[b"via"] == 1, ours
    authority = ours.line.authority if ours.head.authority is None else ours.head.authority
    assert [value for name, value in forwarded.fields if name == b"x-forwarded-host"] == [
        value for value in (authority,) if value is not None
    ], ours


# ---- real heads, and every entry of the lists


@pytest.mark.parametrize(
    ("direction", "head"),
    [*(("request", head) for head in REQUESTS), *(("response", head) for head in RESPONSES)],
)
def test_no_head_of_life_is_read_differently(direction: str, head: bytes) -> None:
    attitude, read, hear = DIRECTIONS[direction]
    whole = head + b"\r\n"
    assert attitude.excuses(read_by_us(whole, read), hear(whole), whole) is not None


ENTRIES = [
    (direction, entry)
    for direction, (attitude, _, _) in DIRECTIONS.items()
    for entry in (*attitude.stricter, *attitude.looser, *attitude.different)
]


@pytest.mark.parametrize(("direction", "entry"), ENTRIES, ids=[f"{d}: {entry.rule}" for d, entry in ENTRIES])
def test_each_documented_difference_to_llhttp_exists(direction: str, entry: Stricter | Looser | Different) -> None:
    """If both read an entry's example alike, the entry is obsolete. A newer llhttp may follow the rule."""
    attitude, read, hear = DIRECTIONS[direction]
    ours, theirs = read_by_us(entry.example, read), hear(entry.example)
    excuses = attitude.excuses(ours, theirs, entry.example)
    assert excuses is not None
    assert entry.rule in excuses
    others = Stance(*(tuple(other for other in entries if other is not entry) for entries in attitude))
    assert others.excuses(ours, theirs, entry.example) is None


# ---- the lists excuse no other difference

PLAIN_READING = Reading((b"GET", b"/"), "1.1", ((b"host", b"a"),), 0, True, False)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (PLAIN_READING, PLAIN_READING._replace(body=5)),
        (PLAIN_READING, PLAIN_READING._replace(body=CHUNKED)),
        (PLAIN_READING, PLAIN_READING._replace(fields=((b"host", b"b"),))),
        (PLAIN_READING, PLAIN_READING._replace(start=(b"GET", b"/a"))),
        (PLAIN_READING, PLAIN_READING._replace(keep_alive=False)),
        (PLAIN_READING, Rejected(0, "Invalid header token")),
        (PLAIN_READING, Unfinished()),
        (Rejected(400, "Host is missing"), PLAIN_READING),
        (Rejected(400, "Some other refusal"), PLAIN_READING),
        (Unfinished(), PLAIN_READING),
    ],
)
def test_a_difference_that_no_rule_speaks_of_is_not_excused(ours: Outcome, theirs: Outcome) -> None:
    assert stance.REQUESTS.excuses(ours, theirs, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n") is None


def test_heads_that_neither_accepts_are_no_difference() -> None:
    assert stance.REQUESTS.excuses(Rejected(400, "a"), Rejected(0, "b"), b"") == []
    assert stance.REQUESTS.excuses(Unfinished(), Rejected(0, "b"), b"") == []
    assert stance.REQUESTS.excuses(Rejected(400, "a"), Unfinished(), b"") == []
