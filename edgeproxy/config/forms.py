"""Written forms of settings, as JSON Schema: the text in a file for the value of a reader.

`written` decorates each reader. A form has a `title`, which the pages of settings show as the kind of a value. A text
with a `${VARIABLE}` is allowed for every single text or number.
"""

import copy
from collections.abc import Callable, Hashable
from typing import NamedTuple, TypeVar

from edgeproxy.base.json_values import JsonObject, JsonValue

VARIABLE = r"\$\{"
"""Pattern of a text with a variable."""
PORT = ":[0-9]{1,5}"

ReaderT = TypeVar("ReaderT", bound=Callable[..., object])


class Form(NamedTuple):
    """The written form of a value."""

    schema: Callable[[JsonObject], JsonObject]
    """Returns the schema of the written value for the schema of the plain value."""
    write: Callable[..., JsonValue] = str
    """Returns the written form of a plain value. None: it cannot be shown."""


_forms: dict[Hashable, Form] = {}


def written(
    schema: JsonObject | Callable[[JsonObject], JsonObject], write: Callable[..., JsonValue] = str
) -> Callable[[ReaderT], ReaderT]:
    """Register the written form of the decorated reader."""
    form = Form(schema if callable(schema) else lambda _: copy.deepcopy(schema), write)

    def register(reader: ReaderT) -> ReaderT:
        _forms[reader] = form
        return reader

    return register


def find_form(reader: Hashable) -> Form | None:
    """Return the form of a reader: its own attribute `form`, or the registered one."""
    form = getattr(reader, "form", None) or _forms.get(reader)
    return form if isinstance(form, Form) else None


def build_text(title: str, pattern: str, *examples: str) -> JsonObject:
    """Build the schema of a text that matches this pattern or contains a variable."""
    schema: JsonObject = {"type": "string", "title": title, "pattern": f"^({pattern})$|{VARIABLE}"}
    return {**schema, "examples": list(examples)} if examples else schema


def build_any_of(*schemas: JsonValue, title: str | None = None) -> JsonObject:
    """Build the schema of a value that matches one of these."""
    return {"anyOf": list(schemas)} if title is None else {"title": title, "anyOf": list(schemas)}


def build_words(*words: JsonValue, title: str | None = None) -> JsonObject:
    """Build the schema of one of these values, or of a variable in its place."""
    return build_any_of({"enum": list(words)}, {"type": "string", "pattern": VARIABLE}, title=title)


def build_number(lowest: int, highest: int) -> JsonObject:
    """Build the schema of a whole number within this range."""
    number: JsonObject = {"type": "integer", "minimum": lowest, "maximum": highest}
    return build_any_of(number, {"type": "string", "pattern": f"^([0-9]+)$|{VARIABLE}"}, title=f"{lowest} to {highest}")


def build_one_or_more(members: JsonObject) -> JsonObject:
    """Build the schema of a non-empty list or of a single member. `members` is the schema of the list."""
    return build_any_of(members["items"], {**members, "minItems": 1})


OFF = build_words("off", False)
"""YAML 1.1 reads `off` as a boolean."""
