"""No value of a described parameter or field makes the collector fail, on either database.

The values include dates that Python cannot convert to UTC, numbers too large for the databases, and invented cursors.
Rate limits are off, so every value is read. A value that is refused before it reaches the database goes to one
collector. Every other value goes to a collector on each database.
"""

import itertools
import random
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import orjson
import pytest

from loadtest.testbed.collector import ADMIN, OWN, SERVICE, Collector
from loadtest.testbed.ports import HOST
from loadtest.testbed.postgresql import programs
from tests.support.unlimited import UNLIMITED_COMMAND

DATES = (
    *("0001-01-01", "0000-01-01", "9999-12-31", "10000-01-01", "1969-12-31", "2027-02-30", "2027-00-00", "-2027-01-01"),
    *("0001-01-01T00:00:00+14:00", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59-14:00", "9999-12-31T23:59:59.5Z"),
    *("2027-01-01T00:00:00+23:59", "2027-01-01T00:00:00+99:99", "2027-01-01T24:00:00Z", "2027-01-01T00:00:00.9999999Z"),
    *("2027-W01-1", "2027-001", "20270101", "0001-01", "9999-12", "0000-00", "2027-13", "٢٠٢٧-٠١-٠١"),
)
NUMBERS = (
    *("0", "-0", "-1", "2147483648", "-2147483649", "9223372036854775807", "9223372036854775808"),
    *("-9223372036854775809", "18446744073709551616", "999999999999999", "1000000000000000", "9" * 400, "9" * 5000),
    *("1e400", "1e18", "1.5", "NaN", "Infinity", "-inf", "0x10", "1_000", "+1", " 1", "٣", "²", "00"),
)
TEXTS = (
    *("", "\0", "a\0b", "\ud800", "\U0010ffff", "%", "'", "%2e%2e", "..", "a" * 300, "🗝" * 100, "\r\nX: y", "null"),
    *("00000000-0000-7000-8000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff", "0" * 32, "AAAA", "e30="),
    *("W10=", "bnVsbA==", "WzFd", "WyJhIl0", "eyJhIjoxfQ", "2027-01-01|x", "1|2", "1,2", ","),
)
JSON: tuple[bytes, ...] = (
    *(b"null", b"true", b'""', b"[]", b"{}", b"0", b"-0", b"-1", b"1.5", b"1e18", b"1e308", b"-1e308", b"1e-320"),
    *(b"2147483648", b"9007199254740993", b"9223372036854775807", b"9223372036854775808", b"-9223372036854775809"),
    *(
        b"18446744073709551615",
        b"18446744073709551616",
        b"1" + b"0" * 400,
        b'"\\u0000"',
        b'"\\ud7ff"',
        b'"%s"' % (b"9" * 400),
    ),
    *(orjson.dumps(value) for value in DATES),
)
PART = 16
"""The seed chooses one in this number of values for a parameter that another operation also has."""
PART_OF_OPERATIONS = 3
"""By day the seed chooses one in this number of operations."""
DESCRIBING = ("title", "description", "default", "examples")
"""The parts of a schema that refuse no value."""
REFUSED = (400, 422)
"""The statuses of a value that did not reach a database. A database's error has another status."""
WEBHOOKS = {"encryption": "a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s=", "networks": ["127.0.0.0/8"]}
BODIES: dict[str, dict[str, Any]] = {
    "patch_edges_edge": {},
    "post_alerts_alert_mute": {"why": "test"},
    "post_customers": {"name": "new", "tier": "basic"},
    "patch_customers_customer": {},
    "post_customers_customer_keys": {},
    "patch_keys_key": {},
    "post_traffic": {},
    "post_maintenance": {"title": "t", "regions": [], "message": "m"},
    "post_maintenance_maintenance_updates": {"state": "changed", "message": "m"},
    "post_limit_usage": {"region": "eu-west", "usage": []},
    "post_arrivals_move_transfers": {"number": 1, "currency": "usd", "grants": [], "overdraft": 0},
    "post_tokens": {"name": "new", "role": "read"},
    "put_flags_flag": {},
    "post_billing_invoices_invoice_credit": {"amount": 1, "why": "test"},
    "post_billing_invoices_invoice_settle": {"amount": 1, "why": "test"},
    "put_billing_rollout": {"why": "test"},
    "put_billing_spend_alerts": {"amounts": [20000]},
    "post_billing_subscription": {"plan": "standard"},
    "put_billing_subscription": {"plan": "standard"},
    "post_billing_subscription_preview": {"plan": "standard"},
    "post_billing_checkout": {"millicredits": 5_000_000},
    "put_billing_credits_top_up": {"below": 5_000_000, "millicredits": 20_000_000, "month_max": 40_000_000},
    "post_billing_credits_adjust": {"customer": "acme", "millicredits": 10_000, "why": "test"},
    "post_events": {"id": "1", "source": "test", "customer": "acme", "meter": "llm_tokens"},
    "post_dead_letters_letter_replay": {"id": "1", "source": "test", "customer": "acme", "meter": "llm_tokens"},
    "post_billing_refunds": {"purchase": "cs_test_none", "millicredits": 1, "why": "test"},
}
"""Other parts of the body, by id of operations that take numbers or dates in JSON."""


@pytest.fixture
def unlimited(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[list[Collector]]:
    """A collector with a customer and without rate limits, for each available database."""
    urls = {"sqlite": f"sqlite:///{tmp_path}/ledger.db"}
    if programs() is not None:
        urls = {"postgresql": request.getfixturevalue("postgresql").database(), **urls}
    regions = {"names": ["eu-west", "us-east"], "default": "eu-west"}
    collectors = []
    with ExitStack() as ends:
        for kind, url in urls.items():
            collector = Collector(tmp_path / kind, url, regions=regions, customers={}, webhooks=WEBHOOKS)
            collectors.append(ends.enter_context(closing(collector)))
            collector.command = UNLIMITED_COMMAND
            collector.start()
            assert collector.send("POST", "/v1/customers", {"name": "acme", "tier": "basic"}).status == 201
        yield collectors


class Asker:
    """Sends requests to the collectors over one connection each, and records the faults."""

    def __init__(self, collectors: Sequence[Collector]) -> None:
        self._connections = [HTTPConnection(HOST, collector.port, timeout=60) for collector in collectors]
        self.faults: list[str] = []
        self.count = 0

    def ask(self, method: str, path: str, body: bytes = b"", token: str = ADMIN, **fields: str) -> bytes:
        """Send a request to each collector until one refuses it. Return the refusal, if any."""
        head = {"Authorization": f"Bearer {token}", "Content-Type": "application/json", **fields}
        self.count += 1
        for connection in self._connections:
            connection.request(method.upper(), path, body, head)
            answer = connection.getresponse()
            content = answer.read()
            if answer.status >= 500:
                self.faults.append(f"{answer.status} {method} {path[:200]} {body[:200]!r}: {content[:120]!r}")
            if answer.status in REFUSED:
                return content
        return b""


def drawn(rng: random.Random) -> Iterator[str]:
    """Return random dates and numbers."""
    for _ in range(3):
        year, month, day, hour = rng.randrange(10_001), rng.randrange(14), rng.randrange(33), rng.randrange(26)
        offset = f"{rng.choice('+-')}{rng.randrange(25):02}:{rng.randrange(61):02}"
        yield f"{year:04}-{month:02}-{day:02}"
        yield f"{year:04}-{month:02}-{day:02}T{hour:02}:00:00{offset}"
        yield str(rng.choice((-1, 1)) * rng.getrandbits(rng.randrange(8, 200)))


Place = tuple[str | int, ...]
"""The steps to a value in JSON."""
Value = TypeVar("Value", str, bytes)


def numbers_and_dates(schema: Any, schemas: dict[str, Any], path: Place = ()) -> dict[Place, bytes]:
    """Return the places of numbers and dates in JSON of a schema, with the schema of each."""
    if "$ref" in schema:
        return numbers_and_dates(schemas[schema["$ref"].rpartition("/")[2]], schemas, path)
    found: dict[Place, bytes] = {}
    for one in itertools.chain.from_iterable(schema.get(name, ()) for name in ("anyOf", "oneOf", "allOf")):
        found |= numbers_and_dates(one, schemas, path)
    for name, one in schema.get("properties", {}).items():
        found |= numbers_and_dates(one, schemas, (*path, name))
    if "items" in schema:
        found |= numbers_and_dates(schema["items"], schemas, (*path, 0))
    if schema.get("type") in ("integer", "number") or schema.get("format") in ("date", "date-time"):
        found[path] = dump_bounds(schema)
    return found


def dump_bounds(schema: dict[str, Any]) -> bytes:
    bounds = {name: value for name, value in schema.items() if name not in DESCRIBING}
    return orjson.dumps(bounds, option=orjson.OPT_SORT_KEYS)


def nested(path: Place, body: dict[str, Any], value: object) -> dict[str, Any]:
    """Return JSON like `body` with this value at a path."""
    made: Any = value
    for step in reversed(path[1:]):
        made = [made] if step == 0 else {step: made}
    return {**body, str(path[0]): made}


def filled(path: str, **values: str) -> str:
    """Return a path with its parameters. Parameters that are not given name existing objects."""
    usual = {
        "customer": "acme",
        "date": "2027-01-01",
        "month": "2027-01",
        "seq": "1",
        "alert": "1",
        "meter": "requests",
    }
    return "/".join(
        quote(values.get(part[1:-1], usual.get(part[1:-1], "x")), safe="", errors="surrogatepass")
        if part.startswith("{")
        else part
        for part in path.split("/")
    )


def values_of(parameter: dict[str, Any], rng: random.Random) -> Iterator[str]:
    """Return the values for a parameter. A name gets only the worst texts, because all names have one parser."""
    schema = parameter["schema"]
    if parameter["in"] != "query" or parameter["name"] == "customer":
        yield from TEXTS[:12]
        yield from (DATES[0], DATES[8], DATES[9], NUMBERS[6], NUMBERS[11])
    elif schema.get("type") != "boolean" and "enum" not in schema:
        yield from (*DATES, *NUMBERS, *TEXTS, *drawn(rng))


class Values:
    """Draws the values for parameters.

    The first parameter of a schema gets all values, and one with another name those that the schema did not refuse.
    These and later parameters get a part of the rest, or all with `is_whole`.
    """

    def __init__(self, rng: random.Random, *, is_whole: bool) -> None:
        self._rng = rng
        self._is_whole = is_whole
        self._tried: set[bytes] = set()
        self._refused: set[tuple[bytes, str | bytes]] = set()

    def draw_for(self, schema: bytes, values: Sequence[Value]) -> list[Value]:
        """Draw values for a schema: all accepted values, and a part of the refused ones."""
        refused = [value for value in values if (schema, value) in self._refused]
        part = refused if self._is_whole else self._rng.sample(refused, len(refused) // PART)
        return [value for value in values if (schema, value) not in self._refused or value in part]

    def note(self, schema: bytes, value: str | bytes, place: Place, refusal: bytes) -> None:
        """Record a value that a schema refused. The refusal must name the field, otherwise it has another reason."""
        (*_, name) = (step for step in place if isinstance(step, str))
        if any(name in error["field"] for error in orjson.loads(refusal or b"{}").get("errors", ())):
            self._refused.add((schema, value))

    def draw(self, parameter: dict[str, Any]) -> list[str]:
        values = list(values_of(parameter, self._rng))
        reader = orjson.dumps([parameter[name] for name in ("in", "name", "schema")], option=orjson.OPT_SORT_KEYS)
        if self._is_whole or reader not in self._tried:
            self._tried.add(reader)
            return self.draw_for(dump_bounds(parameter["schema"]), values)
        return self._rng.sample(values, len(values) // PART)


def try_parameters(asker: Asker, method: str, path: str, parameters: list[dict[str, Any]], values: Values) -> None:
    """Send a request of an operation with each value of each parameter."""
    required = {
        parameter["name"]: "acme" for parameter in parameters if parameter["in"] == "query" and parameter["required"]
    }
    if any((parameter["in"], parameter["name"]) == ("query", "customer") for parameter in parameters):
        required["customer"] = "acme"
    for parameter in parameters:
        name = parameter["name"]
        for value in values.draw(parameter):
            places = {name: value} if parameter["in"] == "path" else {}
            query = {**required, name: value} if parameter["in"] == "query" else required
            fields = {name: value} if parameter["in"] == "header" and value.isprintable() and value.isascii() else {}
            text = "&".join(f"{key}={quote(said, safe='', errors='surrogatepass')}" for key, said in query.items())
            for token in (ADMIN, OWN) if places else (ADMIN,):
                where = f"{filled(path, **places)}?{text}"
                refusal = asker.ask(method, where, b"" if method == "get" else b"{}", token, **fields)
                values.note(dump_bounds(parameter["schema"]), value, (name,), refusal)


@pytest.mark.timeout(400)
def test_no_value_is_a_fault(
    unlimited: list[Collector], seed: int, at_night: bool, request: pytest.FixtureRequest
) -> None:
    described = unlimited[0].get("/v1/openapi.json").json()
    asker, bodies, rng = Asker(unlimited), set(), random.Random(seed)
    values = Values(rng, is_whole=request.config.getoption("--soak"))
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            places = numbers_and_dates(content.get("schema", {}), described["components"]["schemas"])
            if places:
                bodies.add(operation["operationId"])
            if not at_night and rng.randrange(PART_OF_OPERATIONS):
                continue
            try_parameters(asker, method, path, operation["parameters"], values)
            for place, schema in sorted(places.items(), key=str):
                sent = orjson.dumps(nested(place, BODIES[operation["operationId"]], "VALUE"))
                for value in values.draw_for(schema, JSON):
                    refusal = asker.ask(method, filled(path), sent.replace(b'"VALUE"', value))
                    values.note(schema, value, place, refusal)
    for name, value in itertools.product(("value", "time"), JSON):
        event = {"id": "1", "customer": "acme", "meter": "llm_tokens", "value": 1, name: "VALUE"}
        asker.ask("post", "/v1/events", orjson.dumps(event).replace(b'"VALUE"', value), SERVICE)
    assert bodies == BODIES.keys(), "each further request body needs a test"
    assert asker.count > (5000 if at_night else 1000)
    assert not asker.faults, f"{len(asker.faults)} faults:\n" + "\n".join(asker.faults[:40])
