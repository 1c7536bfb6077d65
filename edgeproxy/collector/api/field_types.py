"""Types of query parameters and JSON fields shared by several groups, with their schemas."""

from typing import Annotated

from pydantic import BeforeValidator, WithJsonSchema

from edgeproxy.collector.accounts.change import PAGE_MAX
from edgeproxy.collector.accounts.ids import is_id
from edgeproxy.collector.api.endpoint import Query
from edgeproxy.config.field_codes import OUT_OF_RANGE, WRONG_TYPE
from edgeproxy.config.units import Whole, value_error

SEQ_MAX = 10**18 - 1
"""The highest permitted number of an audit log entry in a query."""
TEXT_CHARACTERS_MAX = 256
"""Most characters of a search text."""


def exact(kind: type, hint: str, lowest: int = 0, highest: int = 0) -> BeforeValidator:
    """Create the validator for JSON's booleans, or for whole numbers from `lowest` to `highest`. Texts are refused."""

    def read(value: object) -> object:
        if type(value) is not kind:
            raise value_error("is something else", hint, WRONG_TYPE)
        if isinstance(value, int) and kind is int and not lowest <= value <= highest:
            raise value_error(f"{value} is out of range", hint, OUT_OF_RANGE)
        return value

    return BeforeValidator(read)


Boolean = Annotated[bool, exact(bool, "true or false")]


def in_query(lowest: int, highest: int) -> WithJsonSchema:
    """Describe a whole number in a query string."""
    return WithJsonSchema({"type": "integer", "minimum": lowest, "maximum": highest})


def read_truth(value: object) -> bool:
    """Read `true` or `false`."""
    if str(value) not in ("true", "false"):
        raise value_error(f"{str(value)[:40]!r} is neither", "true or false")
    return str(value) == "true"


Truth = Annotated[bool, BeforeValidator(read_truth), WithJsonSchema({"type": "boolean"})]


def printed(value: object) -> str:
    """Read a text of printable ASCII characters for a database query."""
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
A_MOMENT = {
    "type": "string",
    "pattern": "^20[0-9]{2}-0[1-9]-[01][1-9](T[01][0-9]:[0-5][0-9]:[0-5][0-9]Z)?$",
    "examples": ["2027-01-01", "2027-01-01T12:00:00Z"],
}


def read_cursor(value: object) -> str:
    """Read the end of the previous page: an id."""
    if not is_id(str(value)):
        raise value_error("is none that was given here as next", "send next of the page before")
    return str(value)


Cursor = Annotated[str, BeforeValidator(read_cursor), WithJsonSchema({"type": "string", "format": "uuid"})]
PageLimit = Annotated[int, BeforeValidator(Whole(1, PAGE_MAX)), in_query(1, PAGE_MAX)]


class ChangeQuery(Query):
    """The options of a change."""

    dry_run: Truth = False
    """True checks the change and shows its result without making it."""
