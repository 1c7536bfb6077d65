"""Encryption of personal data at rest: `encryption` in collector.yaml."""

import re
from typing import Annotated, Self

from pydantic import BeforeValidator, Field, model_validator

from edgeproxy.config import parsers
from edgeproxy.config.field_types import File
from edgeproxy.config.forms import build_text, written
from edgeproxy.config.part import Part
from edgeproxy.config.units import read_duration, value_error

KMS = re.compile(r"aws-kms:(arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:(?:key|alias)/[A-Za-z0-9/_-]+)")
KMS_FORM = "aws-kms:arn:aws:kms:REGION:ACCOUNT:key/ID"
KMS_EXAMPLE = "aws-kms:arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"


@written({"type": "string", "title": "text"}, lambda _: None)
def read_argument(value: object) -> str:
    """Return an argument of a command; raises a value error."""
    if not isinstance(value, str) or not value or "\0" in value:
        raise value_error("cannot be used", "a text")
    return value


Command = Annotated[tuple[Annotated[str, BeforeValidator(read_argument)], ...], Field(min_length=1)]


@written(build_text("key of AWS KMS", KMS.pattern, KMS_EXAMPLE), lambda arn: f"aws-kms:{arn}")
def read_kms(value: object) -> str:
    """Return the ARN of a key of AWS KMS; raises a value error."""
    if not isinstance(value, str) or (match := KMS.fullmatch(value)) is None:
        raise value_error("cannot be used", f"{KMS_FORM}; for other providers a `command` that calls their client")
    return match[1]


class KeyService(Part):
    """The holder of the master key: a file, or a command that asks a key service, a vault or an HSM."""

    file: File | None = Field(
        default=None,
        description="File with the master key: 32 random bytes, or these in hex or Base64, readable by its owner only. "
        "Keep it apart from the database and its backups.",
    )
    command: Annotated[Command, BeforeValidator(parsers.read_list)] | None = Field(
        default=None,
        description="Program that wraps and unwraps keys, and its arguments. It is called with `wrap` or `unwrap` as "
        "the last argument, gets the key in Base64 on standard input, and writes the result in Base64 to standard "
        "output. It has 10 seconds.",
    )
    kms: Annotated[str, BeforeValidator(read_kms)] | None = Field(
        default=None,
        description="Symmetric AWS KMS key that wraps and unwraps keys: `aws-kms:` and its ARN. AWS's usual "
        "credentials are used, from the environment, a profile or a role. Needs `pip install 'edgeproxy[kms]'`.",
    )

    @model_validator(mode="after")
    def _require_one(self) -> Self:
        if [self.file, self.command, self.kms].count(None) != 2:
            raise value_error("is incomplete", "one of `file`, `command` and `kms`")
        return self


class Encryption(KeyService):
    """[Encryption at rest](encryption.md): columns with personal data are encrypted with a key for each customer."""

    cache: Annotated[float, BeforeValidator(read_duration)] = Field(
        default=3600.0,
        description="How long unwrapped keys are used. They are unwrapped again four times within it. If that fails "
        "until its end, encrypted data can be neither read nor written.",
    )
    old: tuple[KeyService, ...] = Field(
        default=(),
        description="Earlier master keys. They unwrap but do not wrap, until `edgeproxy encryption rotate` is done.",
    )
