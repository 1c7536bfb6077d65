"""Bodies of the edge's own errors: as problems, in the format of an API's client libraries, or from a template."""

from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field

from edgeproxy.config.edge.compression import read_media_type
from edgeproxy.config.field_types import File
from edgeproxy.config.forms import build_any_of, build_words, written
from edgeproxy.config.media_types import find_media_type
from edgeproxy.config.part import Part

ErrorFormat = Literal["problem", "openai", "anthropic"]
FORMATS: Final[tuple[ErrorFormat, ...]] = ("problem", "openai", "anthropic")
FORMATS_BY_USAGE: Final[dict[str, ErrorFormat]] = {"openai": "openai", "anthropic": "anthropic"}
"""The format of errors by the format of `response_usage`."""


@written(lambda inner: build_any_of(build_words(*FORMATS), inner))
def read_errors(value: object) -> object:
    """Read the name of a format, or a mapping."""
    return {"format": value} if isinstance(value, str) else value


class Errors(Part):
    """Bodies of the edge's own errors, including errors for upstreams that cannot be reached. A format alone is its
    `format`.

    ```yaml
    routes:
      - {path: /v1/*, upstream: api, errors: openai}
      - {path: /*, upstream: api, auth: none, errors: {template: errors/page.html}}
    ```

    A template contains variables like `{{detail}}`: see [the variables](errors.md#templates). Values are escaped for
    HTML, XML or JSON, by `type`. A reload reads the file again.
    """

    format: ErrorFormat = Field(
        default="problem",
        description="Format of the body: `problem` is `application/problem+json` (RFC 9457); `openai` and `anthropic` "
        "are the [errors of these APIs](errors.md#formats), which their client libraries print.",
    )
    template: File | None = Field(
        default=None, description="File with the body and its variables, in UTF-8. At most 64 KiB."
    )
    text: str | None = Field(default=None, description="The template itself, instead of a file.")
    type: Annotated[str, BeforeValidator(read_media_type)] | None = Field(
        default=None,
        description="`Content-Type` of a template. By default it follows from the file's extension: `.html`, `.json`, "
        "`.txt` or `.xml`; else `text/html`.",
    )

    @property
    def media_type(self) -> str:
        """The media type of the template."""
        return self.type or find_media_type(None if self.template is None else str(self.template))
