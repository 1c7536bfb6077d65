"""The owner's API on the pages of customers: `pages.api` in collector.yaml."""

from pathlib import Path
from typing import Annotated

import orjson
import yaml
from pydantic import BeforeValidator, Field

from edgeproxy.base.json_values import JsonObject
from edgeproxy.config import parsers
from edgeproxy.config.collector.regions import read_region_url
from edgeproxy.config.field_types import FieldName
from edgeproxy.config.forms import build_text, written
from edgeproxy.config.part import Part
from edgeproxy.config.units import read_text, value_error
from edgeproxy.config.yaml_reader import Events

DESCRIPTION_BYTES_MAX = 4 << 20
A_DESCRIPTION = "a file with an OpenAPI 3 description, as JSON or YAML"
A_PATH = "a path such as /v1/ping"


@written(build_text("path", "/.*", "/v1/ping"))
def read_example_path(value: object) -> str:
    """Read the path of an example request."""
    path = read_text(value, A_PATH)
    if not path.startswith("/") or not path.isascii() or not path.isprintable() or set(path) & set("'\"\\` $"):
        raise value_error(f"{path[:80]!r} is not a path that can be written into a command", A_PATH)
    return path


class InvalidDescriptionError(Exception):
    """A file that is no OpenAPI description. The message is a sentence with the reason."""


def load_description(file: Path) -> JsonObject:
    """Return the OpenAPI description of a file; raises InvalidDescriptionError."""
    try:
        with file.open("rb") as opened:
            content = opened.read(DESCRIPTION_BYTES_MAX + 1)
    except OSError as error:
        raise InvalidDescriptionError(f"{file} cannot be read: {error.strerror}") from None
    if len(content) > DESCRIPTION_BYTES_MAX:
        raise InvalidDescriptionError(f"{file} has more than {DESCRIPTION_BYTES_MAX} bytes")
    try:
        document = orjson.loads(content)
    except orjson.JSONDecodeError:
        try:
            if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(content, Loader=Events)):
                raise InvalidDescriptionError(f"{file} has aliases: write the values, or $ref")
            document = yaml.load(content, Loader=Events)
        except (yaml.YAMLError, ValueError, RecursionError):
            raise InvalidDescriptionError(f"{file} is neither JSON nor YAML") from None
    if not isinstance(document, dict) or not str(document.get("openapi", "")).startswith("3."):
        raise InvalidDescriptionError(f"{file} is no OpenAPI 3 description: it has no `openapi: 3.…`")
    if not isinstance(document.get("paths"), dict) or not document["paths"]:
        raise InvalidDescriptionError(f"{file} has no paths")
    return document


@written(build_text("file", ".+", "openapi.yaml"))
def read_description_file(value: object) -> str:
    """Read the path of an OpenAPI description, which must exist."""
    path = parsers.read_file(value)
    try:
        load_description(Path(path))
    except InvalidDescriptionError as error:
        raise value_error(str(error), A_DESCRIPTION) from None
    return path


class CustomerApi(Part):
    """The API that customers' keys are for: [commands to try](pages.md#get-started) and a reference in the portal."""

    url: Annotated[str, BeforeValidator(read_region_url)] = Field(
        description="URL of the API for customers, as in their commands: the URL of the edges."
    )
    example: Annotated[str, BeforeValidator(read_example_path)] = Field(
        default="/", description="Path of a GET request that each customer may send, for the first command."
    )
    field: FieldName = Field(
        default="Authorization",
        description="Request field for the key: in `Authorization` as `Bearer KEY`, in any other as the whole value. "
        "It must be one of the edges' `auth.fields`.",
    )
    openapi: Annotated[Path, BeforeValidator(read_description_file)] | None = Field(
        default=None,
        description="File with the OpenAPI 3 description of the API, as JSON or YAML of at most 4 MiB. The reference "
        "is made from it at the start. By default there is no reference.",
    )
