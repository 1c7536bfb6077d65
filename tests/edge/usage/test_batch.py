"""Batches: the format round-trips, foreign bytes are refused, and the bytes never change."""

import random
import string
import tracemalloc

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy import __version__
from edgeproxy.config.dimensions import format_dimensions
from edgeproxy.wire import batch as batches
from edgeproxy.wire.batch import (
    BODY_BYTES_MAX,
    FIRST,
    NUMBER_MAX,
    ROWS_MAX,
    UNIX_SECONDS_MAX,
    Batch,
    Gap,
    InvalidBatchError,
    build_row,
    compute_digest,
    count_key,
    format_batch,
    parse_batch,
)
from edgeproxy.wire.edge_report import SYNC_FIELD, EdgeReport, format_fields, parse_fields

ALPHANUMERIC = string.ascii_letters + string.digits
ROW = ("acme", "requests", "v1", 3)
BATCH = Batch("edge-00ff", "eu-west", 1, 1_790_000_040, 1_790_000_045, FIRST, (ROW,))
AFTER = Batch(
    "edge-00ff",
    "eu-west",
    2,
    1_790_000_045,
    1_790_000_900,
    "9" * 64,
    (("-", "egress", "api.example.com/v1/*", NUMBER_MAX), ("acme", "requests", "v1", 1)),
    long=True,
)
GAP = Batch("edge-00ff", "eu-west", 3, 1_790_000_900, 1_790_000_900, FIRST, gap=Gap(3, 9, "the disk was damaged"))

SPLIT = BATCH._replace(
    rows=(("acme", "requests", "v1", 3), ("acme", "requests", "v1", 4, '{"agent":"a","model":"m/1"}'))
)

VECTORS = [
    (
        BATCH,
        b'{"edge":"edge-00ff","region":"eu-west","seq":1,"from":1790000040,"to":1790000045,"prev":"' + b"0" * 64
        + b'","rows":[["acme","requests","v1",3]]}',
        "cbb5dfae3111e012999b836200dcb16f208d49bc01e3728329bcefd3c596d368",
    ),
    (
        AFTER,
        b'{"edge":"edge-00ff","region":"eu-west","seq":2,"from":1790000045,"to":1790000900,"prev":"' + b"9" * 64
        + b'","long":true,"rows":[["-","egress","api.example.com/v1/*",9223372036854775807],'
        b'["acme","requests","v1",1]]}',
        "11c024a1e5548bc8f8dc491ce531a9bc8a0f31f4be27c3c5cb062c129faa3b52",
    ),
    (
        SPLIT,
        b'{"edge":"edge-00ff","region":"eu-west","seq":1,"from":1790000040,"to":1790000045,"prev":"' + b"0" * 64
        + b'","rows":[["acme","requests","v1",3],["acme","requests","v1",4,{"agent":"a","model":"m/1"}]]}',
        "0f4ae5344cdb3ff4690892934afc97b3ec8fbfa5bbde6fd185ee8c2d7edbdf6e",
    ),
    (
        GAP,
        b'{"edge":"edge-00ff","region":"eu-west","seq":3,"from":1790000900,"to":1790000900,"prev":"' + b"0" * 64
        + b'","gap":{"from_seq":3,"to_seq":9,"why":"the disk was damaged"}}',
        "4c1b03815d02d4dc2d83a165fc9306187818b743dc92ac2e10fe1fb9902a370b",
    ),
]  # fmt: skip

NO_ROWS = "has rows that are no list of [customer, meter, route, value], or of these and dimensions"
# As batches.NAME and batches.HASH, drawn in a piece: st.from_regex draws each character.
names = st.tuples(st.sampled_from(ALPHANUMERIC), st.text(f"{ALPHANUMERIC}_-", max_size=63)).map("".join)
seqs = st.integers(1, NUMBER_MAX)
parts = (
    names | st.just("-"),
    names,
    st.text('!#$/.*:-abz019~"\\', min_size=1, max_size=20),
    st.integers(1, NUMBER_MAX),
)
dimension_names = st.sampled_from(("model", "agent", "x-1"))
splits = st.dictionaries(dimension_names, st.text('m"\\/1', min_size=1), min_size=1).map(format_dimensions)
rows = st.tuples(*parts) | st.tuples(*parts, splits)
spans = st.tuples(st.integers(0, UNIX_SECONDS_MAX), st.integers(0, UNIX_SECONDS_MAX)).map(sorted)
hashes = st.binary(min_size=32, max_size=32).map(bytes.hex)


@st.composite
def any_batch(draw: st.DrawFn) -> Batch:
    since, until = draw(spans)
    seq = draw(seqs)
    counted, gap = tuple(sorted(draw(st.lists(rows, max_size=5)))), None
    if draw(st.booleans()):
        why = draw(st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=9))
        counted, gap = (), Gap(seq, draw(st.integers(seq, NUMBER_MAX)), why)
    return Batch(draw(names), draw(names), seq, since, until, draw(hashes), counted, gap, draw(st.booleans()))


@given(any_batch())
def test_batch_round_trips(batch):
    assert parse_batch(format_batch(batch)) == batch


@given(any_batch(), st.randoms())
def test_the_order_of_rows_changes_nothing(batch, chance):
    mixed = list(batch.rows)
    chance.shuffle(mixed)
    assert format_batch(batch._replace(rows=tuple(mixed))) == format_batch(batch)


@pytest.mark.parametrize(("batch", "expected", "sha256"), VECTORS)
def test_batch_format_and_hash_are_stable(batch, expected, sha256):
    assert format_batch(batch) == expected
    assert compute_digest(expected) == sha256
    assert parse_batch(expected) == batch
    headers = {"Edge-Id": "edge-00ff", "Edge-Seq": str(batch.seq), "Edge-Hash": sha256}
    assert batches.format_headers(batch, expected) == headers


@given(st.binary(max_size=200))
def test_any_bytes_are_no_batch(content):
    with pytest.raises(InvalidBatchError):
        parse_batch(content)


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


def outcome(content):
    """Return the batch parsed from these bytes, or their problems."""
    try:
        return parse_batch(content)
    except InvalidBatchError as bad:
        return bad.problems


@given(any_batch(), st.data())
def test_a_value_of_any_shape_in_any_place_is_a_batch_or_bad(batch, data):
    tree = orjson.loads(format_batch(batch))
    node = tree
    while True:
        places = list(node) if isinstance(node, dict) else list(range(len(node)))
        place = data.draw(st.sampled_from(places))
        if isinstance(node[place], dict | list) and node[place] and data.draw(st.booleans()):
            node = node[place]
            continue
        node[place] = data.draw(anything)
        break
    found = outcome(orjson.dumps(tree))
    if isinstance(found, Batch):
        assert parse_batch(format_batch(found))._replace(rows=()) == found._replace(rows=())


@given(any_batch(), st.data())
def test_a_flipped_bit_is_a_batch_or_bad(batch, data):
    content = bytearray(format_batch(batch))
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    assert outcome(bytes(content))


def changed(**fields):
    """Return the bytes of BATCH with these fields. A field of None is removed."""
    tree = orjson.loads(format_batch(BATCH)) | fields
    return orjson.dumps({name: value for name, value in tree.items() if value is not None})


@pytest.mark.parametrize(
    ("content", "problems"),
    [
        (b"", ["is not JSON: Input is a zero-length, empty document: line 1 column 1 (char 0)"]),
        (b"[]", ["is not a JSON object"]),
        (changed(version=2), ["is of another version than 1"]),
        (changed(version=True), ["is of another version than 1"]),
        (changed(seq=None, rows=None), ["has no seq", "has neither rows nor a gap"]),
        (changed(sequence=1), ["has an unknown field 'sequence'"]),
        (changed(gap={}), ["has both rows and a gap", "has a gap that is not {from_seq, to_seq, why}"]),
        (changed(rows=None, gap=[1, 2, "x"]), ["has a gap that is not {from_seq, to_seq, why}"]),
        (changed(rows={}), [NO_ROWS]),
        (changed(rows=["abcd"]), [NO_ROWS]),
        (changed(rows=[["a", "b", "c"]]), [NO_ROWS]),
        (changed(edge="-", region=7), ["has no name for its edge", "has no name for its region"]),
        (changed(seq=0), ["has a seq that is no whole number from 1"]),
        (changed(seq=True), ["has a seq that is no whole number from 1"]),
        (changed(to=1.5), ["has a from or a to that is no whole number of Unix seconds"]),
        (changed(to=0), ["ends before it begins"]),
        (changed(prev="F" * 64), ["has a prev that is not 64 hex digits in lower case"]),
        (changed(long=1), ["has a long that is neither true nor false"]),
        (changed(rows=[["a b", "-", " ", 0]]), ["has a customer in row 0 that is no name",
         "has a meter in row 0 that is no name", "has a route in row 0 that is none",
         "has a value in row 0 that is no whole number from 1 to 2^63 - 1"]),
        (changed(rows=[list(ROW), [["a"], "m", "r", 1]]), ["has a customer in row 1 that is no name"]),
        (changed(rows=[[*ROW, {}], list(ROW)]), ["has dimensions in row 0 that are none"]),
        (changed(rows=[[*ROW, "m1"]]), ["has dimensions in row 0 that are none"]),
        (changed(rows=[[*ROW, {"region": "m1"}]]), ["has dimensions in row 0 that are none"]),
        (changed(rows=[[*ROW, {"model": "m1"}, 5]]),
         [NO_ROWS]),
        (changed(rows=[["a", "m", "r", True]]), ["has a value in row 0 that is no whole number from 1 to 2^63 - 1"]),
        (changed(rows=[["a", "m", "r", 1 << 63]]), ["has a value in row 0 that is no whole number from 1 to 2^63 - 1"]),
        (changed(rows=[["a", "m", "r" * 256, 1]]), ["has a route in row 0 that is none"]),
        (changed(rows=None, gap={"from_seq": 1, "to_seq": 0, "why": "x"}),
         ["has a gap whose ends are no whole numbers from 1"]),
        (changed(rows=None, gap={"from_seq": 2, "to_seq": 3, "why": "x"}),
         ["has a gap that does not begin with its seq, or that ends before it begins"]),
        (changed(rows=None, gap={"from_seq": 1, "to_seq": 1, "why": "\n"}),
         ["has a gap without a why of 1 to 500 printable characters"]),
    ],
)  # fmt: skip
def test_invalid_batch_lists_all_its_problems(content, problems):
    with pytest.raises(InvalidBatchError) as caught:
        parse_batch(content)
    assert list(caught.value.problems) == problems


def test_invalid_batch_lists_at_most_the_maximum_of_problems():
    with pytest.raises(InvalidBatchError) as caught:
        parse_batch(changed(rows=[["", "", "", 0]] * 1000))
    assert len(caught.value.problems) == batches.PROBLEMS_SHOWN_MAX


def test_a_batch_is_bounded(seed):
    chance = random.Random(seed)
    longest = tuple(
        ("c" * 64, "m" * 64, f"{chance.getrandbits(64):016x}" + '"' * 239, NUMBER_MAX) for _ in range(ROWS_MAX)
    )
    full = BATCH._replace(rows=longest)
    assert len(format_batch(full)) < BODY_BYTES_MAX
    with pytest.raises(InvalidBatchError, match="more than 20000 rows"):
        format_batch(full._replace(rows=(*longest, ROW)))
    with pytest.raises(InvalidBatchError, match="larger than 16 MiB"):
        parse_batch(b" " * BODY_BYTES_MAX + format_batch(BATCH))


@pytest.mark.parametrize(
    "content",
    [
        b"[" + b"[]," * 4_000_000 + b"[]]",
        b'{"rows":[' + b"{}," * 4_000_000 + b"{}]}",
        b'{"rows":[' + b"0.5," * 4_000_000 + b"1]}",
        b'{"rows":["' + rb"\\\"[[" * 1_000_000 + b'"]}',
        b'["a' + rb"\\" + b'",' + b"[]," * 1_000_000 + b"[]]",
        b"[" + b'"a",' * 1_000_000 + b"1]",
        b'{"why":"' + "\N{GRINNING FACE}".encode() * 1_000_000 + b'"}',
    ],
    ids=["lists", "mappings", "numbers", "one string", "after a string", "strings", "wide"],
)
def test_parsing_an_invalid_batch_needs_little_memory(content):
    tracemalloc.start()
    with pytest.raises(InvalidBatchError, match="is no list of"):
        parse_batch(content)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 4 * len(content) + (32 << 20)


def test_batch_row_round_trips_through_its_key():
    for row in SPLIT.rows:
        assert build_row(count_key(row), row[3]) == row
    assert [count_key(row)[3] for row in SPLIT.rows] == ["", '{"agent":"a","model":"m/1"}']


def test_large_batch_with_quotes_and_brackets_round_trips():
    rows = tuple(("acme", "requests", f'/a,"[{{{number}\\', number) for number in range(1, 18_001))
    batch = BATCH._replace(rows=rows)
    sent = format_batch(batch)
    assert len(sent) > batches.SMALL_BYTES
    assert set(parse_batch(sent).rows) == set(rows)


def test_unreadable_batch_is_not_written():
    for wrong in (
        BATCH._replace(seq=0),
        BATCH._replace(rows=((*ROW, '{"model": "m"}'),)),
        BATCH._replace(rows=(("a", "b", "", 1),)),
        GAP._replace(rows=(ROW,)),
    ):
        with pytest.raises(InvalidBatchError):
            format_batch(wrong)


@pytest.mark.parametrize(("since", "until", "long"), [(60, 60, False), (61, 120, False), (119, 121, True)])
def test_batch_span_is_long_if_it_leaves_its_minute(since, until, long):
    assert batches.is_long(since, until) is long
    assert BATCH._replace(since=since).minute == 60


def test_batch_and_gap_state_their_last_number():
    assert (BATCH.last, GAP.last) == (1, 9)


# ---- an edge's description of itself beside a batch


@pytest.mark.parametrize(("age", "read"), [(None, None), (0.0, 0), (2.6, 3)])
def test_edge_report_survives_a_round_trip(age: float | None, read: int | None) -> None:
    assert parse_fields(format_fields(age)) == EdgeReport(__version__, read)


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"User-Agent": "Python/3.11 aiohttp/3.9", SYNC_FIELD: "-1"},
        {"User-Agent": "edgeproxy/<b>", SYNC_FIELD: "9" * 10},
        {"User-Agent": "edgeproxy/" + "9" * 41, SYNC_FIELD: "٣"},
    ],
)
def test_odd_report_fields_are_ignored(said: dict[str, str]) -> None:
    assert parse_fields(said) == EdgeReport()
