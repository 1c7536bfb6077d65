"""Encryption of personal data at rest: `encryption` in collector.yaml."""

from typing import Annotated, Self

from pydantic import BeforeValidator, Field, model_validator

from edgeproxy.config import parsers
from edgeproxy.config.field_types import File
from edgeproxy.config.forms import written
from edgeproxy.config.part import Part
from edgeproxy.config.units import read_duration, value_error

NOT_AVAILABLE = "a `command` that calls the provider's own client; `kms` itself is not available yet"


@written({"type": "string", "title": "text"}, lambda _: None)
def read_argument(value: object) -> str:
    """Return an argument of a command; raises a value error."""
    if not isinstance(value, str) or not value or "\0" in value:
        raise value_error("cannot be used", "a text")
    return value


Command = Annotated[tuple[Annotated[str, BeforeValidator(read_argument)], ...], Field(min_length=1)]


@written({"type": "null"}, lambda _: None)
def refuse_kms(value: object) -> None:
    """Refuse a provider by its name, which nothing here can reach; raises a value error."""
    if value is not None:
        raise value_error("cannot be used", NOT_AVAILABLE)


class KeyService(Part):
    """The holder of the master key: a file, or a command that asks a service for keys, a vault or an HSM."""

    file: File | None = Field(
        default=None,
        description="File with the master key: 32 random bytes, or these in hex or Base64, for its owner alone. "
        "Keep it apart from the database and its backups.",
    )
    command: Annotated[Command, BeforeValidator(parsers.read_list)] | None = Field(
        default=None,
        description="Program and arguments of what wraps and unwraps keys. It is called with `wrap` or `unwrap` as the "
        "last argument, gets the key in Base64 on standard input, and writes the result in Base64 to standard output; "
        "it has 10 seconds.",
    )
    kms: Annotated[None, BeforeValidator(refuse_kms)] = Field(
        default=None, description="Not available yet, and refused: write a `command` that calls the provider's client."
    )

    @model_validator(mode="after")
    def _require_one(self) -> Self:
        if (self.file is None) == (self.command is None):
            raise value_error("is incomplete", "either `file` or `command`")
        return self


class Encryption(KeyService):
    """[Encryption at rest](encryption.md): columns with personal data are encrypted by a key of each customer."""

    cache: Annotated[float, BeforeValidator(read_duration)] = Field(
        default=3600.0,
        description="For how long keys are used that were unwrapped once. They are unwrapped anew four times in it; "
        "where that fails until its end, nothing that is encrypted can be read or written.",
    )
    old: tuple[KeyService, ...] = Field(
        default=(),
        description="Earlier master keys, which unwrap and do not wrap: until `edgeproxy encryption rotate` is done.",
    )
