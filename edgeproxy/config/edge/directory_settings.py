"""Settings of the directory: the source of further customers, its trusted signers, and its cache."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from edgeproxy.base.json_values import JsonObject
from edgeproxy.config import parsers, units
from edgeproxy.config.forms import build_any_of, build_text, written
from edgeproxy.config.part import Part
from edgeproxy.config.units import DAY_SECONDS, read_text, value_error

A_PUBLIC_KEY = "ed25519: and 44 characters of Base64, as `edgeproxy directory keygen` prints it"
A_CACHE_KEY = (
    "32 bytes in Base64 or hex, best from the environment: ${NAME}, or {file: FILE}, or {command: [PROGRAM, …]}"
)
PUBLIC_KEY_PREFIX = "ed25519:"
KEY_BYTES = 32
KEY_FORM: JsonObject = {"type": "string", "title": "text"}


@written(build_text("public key", "ed25519:[A-Za-z0-9+/]{43}="))
def read_public_key(value: object) -> str:
    """Read the public key of a signer of the directory."""
    key = read_text(value, A_PUBLIC_KEY)
    raw = parsers.decode_base64(key.removeprefix(PUBLIC_KEY_PREFIX))
    if not key.startswith(PUBLIC_KEY_PREFIX) or len(raw) != KEY_BYTES:
        raise value_error(f"{units.format_value(key)} is not a public key", A_PUBLIC_KEY)
    return key


def parse_secret_key(written: str) -> bytes:
    """Parse the 32 bytes of a secret key, in Base64 or hex. Raises ValueError, which does not show the key."""
    try:
        raw = bytes.fromhex(written) if len(written) == 2 * KEY_BYTES else parsers.decode_base64(written)
    except ValueError:
        raw = b""
    if len(raw) != KEY_BYTES:
        raise ValueError("it is not 32 bytes in Base64 or hex")
    return raw


@written(KEY_FORM, lambda _: None)
def read_key(value: object) -> str:
    """Read a key. Errors do not show it."""
    key = parsers.read_secret_text(value, A_CACHE_KEY)
    try:
        parse_secret_key(key)
    except ValueError:
        raise value_error("is no key", A_CACHE_KEY) from None
    return key


@written(lambda inner: build_any_of(KEY_FORM, inner), lambda _: None)
def read_cache_key(value: object) -> object:
    """Read a key, or a mapping with its source. Errors do not show it."""
    return {"key": read_key(value)} if isinstance(value, str) else value


class CacheKey(Part):
    """The key that encrypts the cached directory, or its source.

    ```yaml
    cache_key: {command: [/usr/local/bin/unseal, edge-directory]}
    ```

    A program, for example the client of a key management service, runs when the edge starts to follow the directory. It
    must print the key within ten seconds. If the key changes or is removed, `directory.db` is replaced: see
    [at rest](directory.md#at-rest).
    """

    key: Annotated[str, BeforeValidator(read_key)] | None = Field(
        default=None, repr=False, description="The key itself. `cache_key: KEY` is short for it."
    )
    file: Annotated[Path, BeforeValidator(parsers.read_file)] | None = Field(
        default=None, description="File that contains the key."
    )
    command: Annotated[tuple[str, ...], Field(min_length=1)] | None = Field(
        default=None, description="Program that prints the key, and its arguments."
    )


class Directory(Part):
    """The [customer directory](directory.md): customers and keys that are in the hub or the collector.

    ```yaml
    hub: redis://redis.example.com:6379/0
    directory: {from: hub, trust: "ed25519:11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=", max_age: 24h}
    ```

    If a name is in the files too, the entry in the files applies, with a warning.
    """

    from_: Literal["hub", "collector"] = Field(
        alias="from",
        description="Source of the directory: a [hub](#hub) that is a Redis, or the collector of [`usage`](#usage), "
        "with its token.",
    )
    trust: Annotated[
        tuple[Annotated[str, BeforeValidator(read_public_key)], ...], BeforeValidator(parsers.read_list)
    ] = Field(
        default=(),
        description="Public keys for the signatures of the directory, as `edgeproxy directory keygen` prints them; two "
        "while one replaces the other. Required, except for a hub at a loopback address: without it, anybody who can "
        "write to the hub can create keys.",
    )
    max_age: Annotated[float | Literal["none"] | None, BeforeValidator(units.read_age)] = Field(
        default=None,
        description="Maximum age of the newest signed time. Beyond it, customers of the directory get 503; customers "
        "in the files are still served. Needs `trust`. By default `24h`.",
    )
    revoked: Literal["close", "finish"] = Field(
        default="close",
        description="Treatment of open requests, streams and WebSockets when a key is revoked or a customer is paused: "
        "they end within two seconds (`close`), or go on (`finish`).",
    )
    ttl: Annotated[float, BeforeValidator(units.Time(1.0, DAY_SECONDS))] = Field(
        default=60.0,
        description="Time after which a worker looks a known key up again. Changes arrive within seconds in any case.",
    )

    @property
    def age_seconds_max(self) -> float | None:
        """Maximum age of the newest signed time, in seconds. None: unlimited, as always without signers."""
        if not self.trust or self.max_age == "none":
            return None
        return DAY_SECONDS if self.max_age is None else self.max_age
