"""Settings of the directory: where further customers come from, who is trusted with them, how they are kept."""

import base64
import binascii
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from edgeproxy.config import parsers, units
from edgeproxy.config.part import Part
from edgeproxy.config.units import read_text, value_error

DAY_SECONDS = 86_400.0
A_PUBLIC_KEY = "ed25519: and 44 characters of Base64, as `edgeproxy directory keygen` prints it"
A_CACHE_KEY = (
    "32 bytes in Base64 or hex, best from the environment: ${NAME}, or {file: FILE}, or {command: [PROGRAM, …]}"
)
PUBLIC_KEY_PREFIX = "ed25519:"
KEY_BYTES = 32


def read_public_key(value: object) -> str:
    """Read the public key of who signs the directory."""
    key = read_text(value, A_PUBLIC_KEY)
    raw = _decode_base64(key.removeprefix(PUBLIC_KEY_PREFIX))
    if not key.startswith(PUBLIC_KEY_PREFIX) or raw is None or len(raw) != KEY_BYTES:
        raise value_error(f"{units.format_value(key)} is not a public key", A_PUBLIC_KEY)
    return key


def read_trust(value: object) -> object:
    """Read a list of public keys, of which a single one may stand alone."""
    return (value,) if isinstance(value, str) else value


def parse_secret_key(written: str) -> bytes:
    """Parse the 32 bytes of a secret key, written in Base64 or hex; raises ValueError, which does not show it."""
    written = written.strip()
    try:
        raw = bytes.fromhex(written) if len(written) == 2 * KEY_BYTES else _decode_base64(written)
    except ValueError:
        raw = None
    if raw is None or len(raw) != KEY_BYTES:
        raise ValueError("it is not 32 bytes in Base64 or hex")
    return raw


def _decode_base64(written: str) -> bytes | None:
    try:
        return base64.b64decode(written, validate=True)
    except (binascii.Error, ValueError):
        return None


def read_cache_key(value: object) -> object:
    """Read a key, or where it is. Errors do not show it."""
    if not isinstance(value, str):
        return value
    try:
        parse_secret_key(value)
    except ValueError:
        raise PydanticCustomError("wrong", "{what}, {hint}", {"what": "is no key", "hint": A_CACHE_KEY}) from None
    return {"key": value}


class CacheKey(Part):
    """The key by which the cached directory is encrypted: one of these."""

    key: str | None = Field(default=None, repr=False)
    """The key itself, 32 bytes in Base64 or hex."""
    file: Annotated[Path, BeforeValidator(parsers.read_file)] | None = None
    """A file that has it."""
    command: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """A program that prints it, and its arguments."""


class Directory(Part):
    """Where further customers and keys come from, beside those of the files."""

    from_: Literal["hub", "collector"] = Field(alias="from")
    """Who knows them: the hub, to which `edgeproxy directory push` or the collector brings them, or the collector."""
    trust: Annotated[tuple[Annotated[str, BeforeValidator(read_public_key)], ...], BeforeValidator(read_trust)] = ()
    """The public keys of who may say who there is; two while one is replaced. What they have not signed is refused.
    Only a hub of this host may do without."""
    max_age: Annotated[float | Literal["none"] | None, BeforeValidator(units.read_age)] = None
    """How old the newest signed time may be, a day by default; then customers of the directory get 503. `none`: of any
    age."""
    revoked: Literal["close", "finish"] = "close"
    """What becomes of the requests of a key that is revoked: they end within two seconds, or as if nothing was."""
    ttl: Annotated[float, BeforeValidator(units.Time(1.0, DAY_SECONDS))] = 60.0
    """After which time a worker asks anew for a key that it knows; changes are heard of without that."""

    @property
    def age_seconds_max(self) -> float | None:
        """Seconds that the newest signed time may be old; None: any, as always where nobody signs."""
        if not self.trust or self.max_age == "none":
            return None
        return DAY_SECONDS if self.max_age is None else self.max_age
