"""The base class of all parts of a configuration, and the marks of their fields."""

from enum import Enum, auto
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict


class FieldMark(Enum):
    """Marks of a field in the metadata of its type: `Annotated[Name, FieldMark.RESTART]`."""

    RESTART = auto()
    """A reload does not change the setting. A change needs a restart."""
    FILLED = auto()
    """The setting is required, but not in every file: another file or a default provides it."""


class Part(BaseModel):
    """A part of the configuration. It is immutable and rejects unknown fields."""

    # Models are built when first read. To build all hundred at import took a third of a worker's start.
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    @classmethod
    def list_marked(cls, mark: FieldMark) -> tuple[str, ...]:
        """List the fields that have this mark."""
        return tuple(name for name, field in cls.model_fields.items() if mark in field.metadata)


P = TypeVar("P", bound=Part)


def replace_secrets(part: P, new: P) -> P:
    """Return `part` with the secrets of `new`, which are the fields that `repr` leaves out.

    A part whose other fields differ keeps its secrets, because the new ones may be for another server.
    """
    secrets: dict[str, Any] = {}
    parts: dict[str, Part] = {}
    is_same = True
    for name, field in type(part).model_fields.items():
        before, after = getattr(part, name), getattr(new, name)
        if before == after:
            continue
        if not field.repr:
            secrets[name] = after
        elif isinstance(before, Part) and type(before) is type(after):
            parts[name] = replace_secrets(before, after)
        else:
            is_same = False
    return part.model_copy(update={**parts, **(secrets if is_same else {})})
