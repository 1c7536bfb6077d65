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
    said = str(value)
    if not (said.isascii() and said.isprintable() and len(said) <= TEXT_CHARACTERS_MAX):
        raise value_error(
            f"{said[:40]!r} cannot be there", f"at most {TEXT_CHARACTERS_MAX} printable characters of ASCII"
        )
    return said


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
    meter: Annotated[str, WithJsonSchema(A_SUBJECT)] | None = None
    since: Annotated[str, WithJsonSchema(A_MOMENT)] | None = Field(default=None, alias="from")
    until: Annotated[str, WithJsonSchema(A_MOMENT)] | None = Field(default=None, alias="to")
    by: Annotated[str, WithJsonSchema({"type": "string", "pattern": f"^({'|'.join(FIELDS)})?$"})] | None = None
    """Any of minute, hour, day, customer, meter, route, region and the dimensions of meters, with commas between."""
    limit: Annotated[str, WithJsonSchema({"type": "integer", "minimum": 1, "maximum": ROWS_MAX})] | None = None
    cursor: str | None = None
    format: Annotated[str, WithJsonSchema({"enum": list(FORMATS)})] | None = None


class Usage(TypedDict):
    """What was used."""

    total: int | None
    totals: NotRequired[dict[str, int]]
    rows: list[dict[str, Any]]
    next: NotRequired[str]
    unknown: NotRequired[dict[str, list[str]]]


class EventRejected(TypedDict):
    """An event that was not counted: its place in the request, from 0, and why."""

    index: int
    error: str


class EventsResult(TypedDict):
    """What became of events."""

    accepted: int
    duplicates: int
    rejected: list[EventRejected]


class DeadLettersQuery(Query):
    """Which dead letters."""

    limit: Annotated[int, BeforeValidator(Whole(1, PAGE_LETTERS_MAX)), in_query(1, PAGE_LETTERS_MAX)] = 100
    cursor: Printed = ""


class WhyQuery(Query):
    """Why something is done."""

    why: Printed


class DeadLetter(TypedDict):
    """An event that was rejected."""

    id: str
    received: str
    token: str
    error: str
    event: Any


class DeadLetterList(TypedDict):
    """Events that were rejected, oldest first."""

    dead_letters: list[DeadLetter]
    next: NotRequired[str]


class EdgeList(TypedDict):
    """How each edge is."""

    edges: list[dict[str, Any]]


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
    token: Name | None = None
    region: Name | None = None
    gap_to: GapTo | None = None

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
    watermark: int


class Watermark(TypedDict):
    """The batch up to which all of the edge is settled."""

    watermark: int


class QuarantineQuery(Query):
    """Whose batches."""

    edge: str | None = None


class QuarantineList(TypedDict):
    """What is in quarantine."""

    count: int
    batches: list[dict[str, Any]]


class QuarantinedBatch(TypedDict):
    """What is known of a batch in quarantine."""

    edge: str
    seq: int
    state: str
    why: str
    hash: str


class ReplayResult(TypedDict):
    """What a replay came to."""

    rows: int
    total: int
    minute: str
    again: bool


class AuditQuery(Query):
    """Which entries."""

    after: Annotated[int, BeforeValidator(Whole(0, SEQ_MAX)), in_query(0, SEQ_MAX)] = 0
    limit: Annotated[int, BeforeValidator(Whole(1, PAGE_ENTRIES_MAX)), in_query(1, PAGE_ENTRIES_MAX)] = 100
    order: Literal["oldest", "newest"] = "oldest"
    """Which come first; with `newest` those before `after` follow."""
    actor: Printed | None = None
    action: Printed | None = None
    target: Printed | None = None


class AuditPage(TypedDict):
    """A page of the audit log, oldest first."""

    entries: list[dict[str, Any]]
    next: NotRequired[int]


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
    """Whether it is only shown."""


class CustomersQuery(Query):
    """Which customers."""

    limit: PageLimit = 100
    cursor: Cursor | None = None
    name: Printed | None = None
    tier: Printed | None = None
    external_id: Printed | None = None
    search: Printed | None = None
    """How a name or a key begins, an external id, or an id. Those that are found are one page."""


class KeysQuery(Query):
    """Which of the keys."""

    limit: PageLimit = 100
    cursor: Cursor | None = None


class Ready(TypedDict):
    """Whether batches can be taken now."""

    ready: bool
    reason: str | None


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
    """192.0.2.0/24 or 2001:db8:1::/48."""
    voter: Short
    """Who in that network, so that nobody votes twice; no address."""
    country: CountryCode | None = None
    measured: Annotated[dict[Name, Milliseconds], Field(min_length=1, max_length=REGIONS_MAX)]


class RegionReports(BaseModel):
    """What clients have measured."""

    model_config = ConfigDict(extra="forbid")

    reports: Annotated[list[RegionReport], Field(max_length=REPORTS_MAX)]


class RegionReportsResult(TypedDict):
    """How many of the reports count: others are about regions that are not known here."""

    taken: int


class BestRegionQuery(Query):
    """For whom: an address or its network; the country, where somebody knows it; the customer, where it has a wish."""

    address: Short | None = None
    country: CountryCode | None = None
    customer: Name | None = None


class BestRegion(TypedDict):
    """The best region, by what it was chosen (prefer, network, country or default), and all others in their order."""

    region: str
    because: str
    order: list[str]
    measured: dict[str, float]
    network: str | None


class DirectoryQuery(Query):
    """What of the directory is asked for."""

    after: Annotated[str, Field(pattern="^[0-9a-f]{32}$")] | None = None
    """The token of the version that is known; by default none is."""
    wait: Annotated[int, BeforeValidator(Whole(0, DIRECTORY_WAIT_SECONDS_MAX)), in_query(0, 30)] = 0
    """Seconds to wait until there is another version."""


class DirectoryChanges(TypedDict):
    """What there is beside the version that is known."""

    follows: bool
    """Whether that version is in the log."""
    lines: list[str]
    """Those after it where it is, else all."""
    time: str | None
    """When which version was the newest, signed."""
