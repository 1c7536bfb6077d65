"""Media types by the names of files."""

from typing import Final

TYPES_BY_SUFFIX: Final = {
    "html": "text/html",
    "json": "application/json",
    "txt": "text/plain",
    "xml": "application/xml",
}
DEFAULT_TYPE: Final = "text/html"


def find_media_type(file: str | None) -> str:
    """Return the media type of a text by the name of its file."""
    return TYPES_BY_SUFFIX.get((file or "").rpartition(".")[2].lower(), DEFAULT_TYPE)
