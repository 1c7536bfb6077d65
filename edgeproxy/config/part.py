"""The base class of all parts of a configuration, and the marks of their fields."""

from enum import Enum, auto

from pydantic import BaseModel, ConfigDict


class FieldMark(Enum):
    """Marks of a field, as metadata of its type: `Annotated[Name, FieldMark.RESTART]`."""

    RESTART = auto()
    """A reload leaves the setting as it is: a change needs a restart."""
    FILLED = auto()
    """The setting is required in the end, but not in each file: another file has it, or a default is made."""


class Part(BaseModel):
    """A part of the configuration: it cannot be changed, and takes no field that it does not know."""

    # Built when one is first read, and so only those that are read by themselves: to build each of the hundred as it is
    # imported took a third of a worker's start.
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    @classmethod
    def list_marked(cls, mark: FieldMark) -> tuple[str, ...]:
        """List the fields that have this mark."""
        return tuple(name for name, field in cls.model_fields.items() if mark in field.metadata)
