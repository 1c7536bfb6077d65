"""End users: the users of a customer, each of whom may have an own limit."""

from typing import Annotated, Final, Literal, Self

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from edgeproxy.config.field_types import ClaimName, FieldName
from edgeproxy.config.forms import written
from edgeproxy.config.parsers import GIVEN, OWN_FIELDS
from edgeproxy.config.part import Part
from edgeproxy.config.units import format_value, value_error

IP: Final = "ip"
"""The word for end users who are identified by address."""
A_PLACE: Final = "write one of header, query and claim"


class EndUser(Part):
    """The place in a request that names the end user: a field, a query parameter, or a claim of its [token](jwt.md)."""

    header: FieldName | None = Field(
        default=None, description="Field of the request, such as `X-End-User`. A request with two lines of it gets 400."
    )
    query: ClaimName | None = Field(default=None, description="Query parameter. A request that has it twice gets 400.")
    claim: ClaimName | None = Field(
        default=None, description="Claim of the token, such as `sub`: a text or a whole number."
    )

    @property
    def place(self) -> tuple[str, str]:
        """The kind of the place where requests name the end user, and its name there."""
        return next((kind, name) for kind, name in self if name is not None)

    @property
    def is_of_request(self) -> bool:
        """True if requests name the end user themselves, for any customer."""
        return self.claim is None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if sum(name is not None for _, name in self) != 1:
            raise value_error("names no place or several", A_PLACE)
        if self.header is not None and self.header.lower() in OWN_FIELDS:
            raise value_error(f"{self.header} is for the edge itself, and is not looked at", "name another field")
        return self


def get_tag(value: object) -> str:
    """Return which of its two forms a value of `per` has."""
    return IP if value == IP else GIVEN


@written(lambda inner: inner)
def read_per(value: object) -> object:
    """Read how end users are told apart. One of the two forms is a word."""
    if isinstance(value, str) and value != IP:
        raise value_error(f"{format_value(value)} is not known here", "write ip, or {header: X-End-User}")
    return value


Per = Annotated[
    Annotated[EndUser, Tag(GIVEN)] | Annotated[Literal["ip"], Tag(IP)],
    Discriminator(get_tag),
    BeforeValidator(read_per),
]
"""The way that a limit tells end users apart."""
