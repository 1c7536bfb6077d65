"""What the endpoints of the ledger take and give, as the description shows it and, where it is sent, as it is checked.

What a query means in full is for the room that answers it.
"""

from typing import Annotated, Any, Literal, NotRequired, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, WithJsonSchema, model_validator
from typing_extensions import TypedDict

from edgeproxy.collector.accounts.audit import PAGE_ENTRIES_MAX
from edgeproxy.collector.accounts.change import PAGE_MAX
from edgeproxy.collector.accounts.ids import is_id
from edgeproxy.collector.api.endpoint import Query
from edgeproxy.collector.events.dead_letters import PAGE_LETTERS_MAX
from edgeproxy.collector.ledger.queries import FIELDS, FORMATS, ROWS_MAX
from edgeproxy.config.collector.regions import REGIONS_MAX
from edgeproxy.config.field_types import Name
from edgeproxy.config.units import Whole, value_error
from edgeproxy.regions.latencies import MS_MAX
from edgeproxy.wire.batch import ROUTE_CHARACTERS_MAX

GAP_SEQ_MAX = 100_000_000
"""The batch up to which a chain may begin with a gap at most, with consent: centuries of batches of an edge."""
SEQ_MAX = 10**18 - 1
"""The last number of an entry of the audit log that can be asked for."""
DIRECTORY_WAIT_SECONDS_MAX = 30
"""Seconds that an edge may wait for a version of the directory."""
TEXT_CHARACTERS_MAX = 256
"""Characters of what is searched for."""


def exact(kind: type, hint: str, lowest: int = 0, highest: int = 0) -> BeforeValidator:
    """Make the reader of JSON's true and false, or of its whole numbers between these two: a text is neither."""

    def read(value: object) -> object:
        if type(value) is not kind:
            raise value_error("is something else", hint)
        if isinstance(value, int) and kind is int and not lowest <= value <= highest:
            raise value_error(f"{value} is out of range", hint)
        return value

    return BeforeValidator(read)


Boolean = Annotated[bool, exact(bool, "true or false")]


def in_query(lowest: int, highest: int) -> WithJsonSchema:
    """Describe a whole number of a query string."""
    return WithJsonSchema({"type": "integer", "minimum": lowest, "maximum": highest})


def read_truth(value: object) -> bool:
    """Read `true` or `false`."""
    if str(value) not in ("true", "false"):
        raise value_error(f"{str(value)[:40]!r} is neither", "true or false")
    return str(value) == "true"


Truth = Annotated[bool, BeforeValidator(read_truth), WithJsonSchema({"type": "boolean"})]


def printed(value: object) -> str:
    """Read a text of visible characters of ASCII and spaces: what a database is asked for."""
    text = str(value)
    if not (text.isascii() and text.isprintable() and len(text) <= TEXT_CHARACTERS_MAX):
        raise value_error(
            f"{text[:40]!r} cannot be there", f"at most {TEXT_CHARACTERS_MAX} printable characters of ASCII"
        )
    return text


Printed = Annotated[
    str,
    BeforeValidator(printed),
    WithJsonSchema({"type": "string", "pattern": f"^[ -~]{{0,{TEXT_CHARACTERS_MAX}}}$"}),
]
A_SUBJECT = {"type": "string", "pattern": f"^[ -~]{{1,{ROUTE_CHARACTERS_MAX}}}$"}
A_MOMENT = {
    "type": "string",
    "pattern": "^20[0-9]{2}-0[1-9]-[01][1-9](T[01][0-9]:[0-5][0-9]:[0-5][0-9]Z)?$",
    "examples": ["2027-01-01", "2027-01-01T12:00:00Z"],
}


class UsageQuery(Query):
    """Which usage, and how it is grouped; `collector/ledger/queries.py` reads it."""

    customer: Annotated[str, WithJsonSchema(A_SUBJECT)] | None = None
    """Only usage of this customer, by name. A customer's own token sees its own alone."""
    meter: Annotated[str, WithJsonSchema(A_SUBJECT)] | None = None
    """Only usage of this meter."""
    since: Annotated[str, WithJsonSchema(A_MOMENT)] | None = Field(default=None, alias="from")
    """The beginning of the time, in UTC."""
    until: Annotated[str, WithJsonSchema(A_MOMENT)] | None = Field(default=None, alias="to")
    """The end of the time, in UTC; usage at this moment is not counted."""
    by: Annotated[str, WithJsonSchema({"type": "string", "pattern": f"^({'|'.join(FIELDS)})?$"})] | None = None
    """The fields to group by, separated by commas: minute, hour, day, customer, meter, route, region or a dimension
    of a meter."""
    limit: Annotated[str, WithJsonSchema({"type": "integer", "minimum": 1, "maximum": ROWS_MAX})] | None = None
    """The number of rows on the page, at most."""
    cursor: str | None = None
    """The `next` of the page before; by default the first page."""
    format: Annotated[str, WithJsonSchema({"enum": list(FORMATS)})] | None = None
    """The format of the answer; by default the Accept field decides."""


class Usage(TypedDict):
    """What was used."""

    total: int | None
    """The units used in all, in the meter's own unit; null where several meters with different units are added."""
    totals: NotRequired[dict[str, int]]
    """The units used of each meter, where there are several."""
    rows: list[dict[str, Any]]
    """The groups: each has the fields it is grouped by, and `value`, its units."""
    next: NotRequired[str]
    """The `cursor` of the next page; missing on the last one."""
    unknown: NotRequired[dict[str, list[str]]]
    """The names in rows that no file and no account has, by field."""


class EventRejected(TypedDict):
    """An event that was not counted: its place in the request, from 0, and why."""

    index: int
    """The place of the event in the request, from 0."""
    error: str
    """The reason why it was rejected."""


class EventsResult(TypedDict):
    """What became of events."""

    accepted: int
    """The number of events counted."""
    duplicates: int
    """The number of events that had been counted before."""
    rejected: list[EventRejected]
    """The events that were not counted; they are stored as dead letters."""


class DeadLettersQuery(Query):
    """Which dead letters."""

    limit: Annotated[int, BeforeValidator(Whole(1, PAGE_LETTERS_MAX)), in_query(1, PAGE_LETTERS_MAX)] = 100
    """The number of dead letters on the page, at most."""
    cursor: Printed = ""
    """The `next` of the page before; by default the first page."""


class WhyQuery(Query):
    """Why something is done."""

    why: Printed
    """The reason, for the audit log."""


class DeadLetter(TypedDict):
    """An event that was rejected."""

    id: str
    """The id of the dead letter."""
    received: str
    """The time at which the event came."""
    token: str
    """The name of the token by which it came."""
    error: str
    """The reason why it was rejected."""
    event: Any
    """The event as it came."""


class DeadLetterList(TypedDict):
    """Events that were rejected, oldest first."""

    dead_letters: list[DeadLetter]
    """The dead letters of this page, oldest first."""
    next: NotRequired[str]
    """The `cursor` of the next page; missing on the last one."""


class EdgeList(TypedDict):
    """How each edge is."""

    edges: list[dict[str, Any]]
    """Each with `edge`, `region`, `token`, `watermark`, its `last` batch, `lag_s` and `sync_age_s` in seconds,
    `retired`, `version`, `gaps` and `quarantined`."""


GapTo = Annotated[
    int,
    exact(int, f"a whole number from 0 to {GAP_SEQ_MAX}", 0, GAP_SEQ_MAX),
    WithJsonSchema({"type": "integer", "minimum": 0, "maximum": GAP_SEQ_MAX}),
]
FORMS_OF_CHANGE: tuple[list[JsonValue], ...] = (["retired"], ["region", "token"], ["gap_to"])
"""The fields that make a change of an edge."""


class UpdateEdgeRequest(BaseModel):
    """Retire an edge or take it back; bind it to another token and region; or consent to a gap at its beginning."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"oneOf": [{"required": form} for form in FORMS_OF_CHANGE]},
    )

    retired: Boolean | None = None
    """True retires the edge, which then raises no alert; false takes it back."""
    token: Name | None = None
    """The token that the edge is bound to, by name; together with `region`."""
    region: Name | None = None
    """The region that the edge is bound to; together with `token`."""
    gap_to: GapTo | None = None
    """The number of the batch up to which the edge's first batches may be missing."""

    @model_validator(mode="after")
    def is_of_one_form(self) -> Self:
        """Raise unless these fields make one change."""
        given = self.model_dump(exclude_none=True)
        if sorted(given) not in FORMS_OF_CHANGE or given.keys() != self.model_fields_set:
            raise value_error(
                "is no change", 'send {"retired": true}, {"token": NAME, "region": REGION} or {"gap_to": SEQ}'
            )
        return self


class EdgeUpdated(TypedDict):
    """The watermark of an edge, and what was changed."""

    edge: str
    """The id of the edge."""
    watermark: int
    """The number of the batch up to which all of the edge's batches are settled."""


class Watermark(TypedDict):
    """The batch up to which all of the edge is settled."""

    watermark: int
    """The number of the batch up to which all of the edge's batches are settled."""


class QuarantineQuery(Query):
    """Whose batches."""

    edge: str | None = None
    """Only batches of this edge, by id."""


class QuarantineList(TypedDict):
    """What is in quarantine."""

    count: int
    """The number of batches in quarantine."""
    batches: list[dict[str, Any]]
    """Each with `edge`, `seq`, `received`, `size` in bytes, `coding` and `why`; the first of them, by edge and seq."""


class QuarantinedBatch(TypedDict):
    """What is known of a batch in quarantine."""

    edge: str
    """The id of the edge."""
    seq: int
    """The number of the batch."""
    state: str
    """The state of the batch: in quarantine, or counted after a replay."""
    why: str
    """The reason why it could not be read."""
    hash: str
    """The hash of the batch in the edge's chain, in hex digits."""
    sha256: str
    """The SHA-256 of the uncompressed body, in hex digits."""
    prev: str | None
    """The hash of the batch before it, which a body sent for a replay must name; null where any will do."""
    received: str
    """The time at which the batch came."""
    coding: str
    """The content coding of the stored body, such as `zstd`."""
    size: int
    """The size of the stored body in bytes."""
    begins: str
    """The first bytes of the uncompressed body, as text."""


class ReplayResult(TypedDict):
    """What a replay came to."""

    rows: int
    """The number of rows counted."""
    total: int
    """The sum of the values of these rows."""
    minute: str
    """The beginning of the minute in which they are counted."""
    again: bool
    """Whether the batch had been counted before, so that nothing changed."""


class AuditQuery(Query):
    """Which entries."""

    after: Annotated[int, BeforeValidator(Whole(0, SEQ_MAX)), in_query(0, SEQ_MAX)] = 0
    """The number of the entry after which the page begins; by default 0."""
    limit: Annotated[int, BeforeValidator(Whole(1, PAGE_ENTRIES_MAX)), in_query(1, PAGE_ENTRIES_MAX)] = 100
    """The number of entries on the page, at most."""
    order: Literal["oldest", "newest"] = "oldest"
    """`oldest` begins with the oldest entry; `newest` goes back from the latest, or from `after`."""
    actor: Printed | None = None
    """Only entries of this token or operator."""
    action: Printed | None = None
    """Only entries of this action, such as `customer.change`."""
    target: Printed | None = None
    """Only entries about this target, such as a customer's name."""


class AuditPage(TypedDict):
    """A page of the audit log, oldest first."""

    entries: list[dict[str, Any]]
    """Each with `seq`, `at`, `actor`, `origin`, `action`, `target`, its values `before` and `after`, `request_id`
    and `hash`."""
    next: NotRequired[int]
    """The `after` of the next page; missing on the last one."""


def read_cursor(value: object) -> str:
    """Read where a page ends: an id."""
    if not is_id(str(value)):
        raise value_error("is none that was given here as next", "send next of the page before")
    return str(value)


Cursor = Annotated[str, BeforeValidator(read_cursor), WithJsonSchema({"type": "string", "format": "uuid"})]
PageLimit = Annotated[int, BeforeValidator(Whole(1, PAGE_MAX)), in_query(1, PAGE_MAX)]


class ChangeQuery(Query):
    """How a change is made."""

    dry_run: Truth = False
    """True checks the change and shows its result without making it."""


class CustomersQuery(Query):
    """Which customers."""

    limit: PageLimit = 100
    """The number of customers on the page, at most."""
    cursor: Cursor | None = None
    """The `next` of the page before; by default the first page."""
    name: Printed | None = None
    """Only the customer of this name."""
    tier: Printed | None = None
    """Only customers of this tier."""
    external_id: Printed | None = None
    """Only the customer with this id in another system."""
    search: Printed | None = None
    """The beginning of a name or a key, an external id, or an id; the matches are one page."""


class KeysQuery(Query):
    """Which of the keys."""

    limit: PageLimit = 100
    """The number of keys on the page, at most."""
    cursor: Cursor | None = None
    """The `next` of the page before; by default the first page."""


class Ready(TypedDict):
    """Whether batches can be taken now."""

    ready: bool
    """Whether batches can be taken now."""
    reason: str | None
    """The reason why not; null where they can."""


# ---- regions

REPORTS_MAX = 500
"""Reports that come at once."""
Milliseconds = Annotated[float, Field(strict=True, gt=0, le=MS_MAX)]
Short = Annotated[str, Field(min_length=1, max_length=64, pattern="^[!-~]+$")]
CountryCode = Annotated[str, Field(pattern="^[A-Z]{2}$")]


class RegionReport(BaseModel):
    """What one client has measured, in milliseconds by region."""

    model_config = ConfigDict(extra="forbid")

    network: Short
    """The network of the client: 192.0.2.0/24 or 2001:db8:1::/48."""
    voter: Short
    """The client within its network, so that none counts twice; no address."""
    country: CountryCode | None = None
    """The country of the client (ISO 3166-1 alpha-2), such as DE."""
    measured: Annotated[dict[Name, Milliseconds], Field(min_length=1, max_length=REGIONS_MAX)]
    """The round trip to each region, in milliseconds."""


class RegionReports(BaseModel):
    """What clients have measured."""

    model_config = ConfigDict(extra="forbid")

    reports: Annotated[list[RegionReport], Field(max_length=REPORTS_MAX)]
    """The reports, one for each client."""


class RegionReportsResult(TypedDict):
    """How many of the reports count: others are about regions that are not known here."""

    taken: int
    """The number of reports that count; others are about regions that are not configured."""


class BestRegionQuery(Query):
    """For whom: an address or its network; the country, where somebody knows it; the customer, where it has a wish."""

    address: Short | None = None
    """The address of the client, or its network."""
    country: CountryCode | None = None
    """The country of the client (ISO 3166-1 alpha-2), such as DE."""
    customer: Name | None = None
    """The customer whose preferred and allowed regions count, by name."""


class BestRegion(TypedDict):
    """The best region, by what it was chosen (prefer, network, country or default), and all others in their order."""

    region: str
    """The best region, by name."""
    because: str
    """The reason of the choice: `prefer`, `network`, `country` or `default`."""
    order: list[str]
    """All regions, best first."""
    measured: dict[str, float]
    """The round trip to each region, in milliseconds, as far as it is known."""
    network: str | None
    """The network that was looked up; null where no address was given."""


class DirectoryQuery(Query):
    """What of the directory is asked for."""

    after: Annotated[str, Field(pattern="^[0-9a-f]{32}$")] | None = None
    """The token of the version that the edge has; by default it has none."""
    wait: Annotated[int, BeforeValidator(Whole(0, DIRECTORY_WAIT_SECONDS_MAX)), in_query(0, 30)] = 0
    """The seconds to wait for a version where there is no later one yet."""


class DirectoryChanges(TypedDict):
    """What there is beside the version that is known."""

    follows: bool
    """Whether the version named in the query is in the log."""
    lines: list[str]
    """The signed lines after that version where it is in the log; all lines otherwise."""
    time: str | None
    """The signed time at which a version was the newest; null where there is none."""
