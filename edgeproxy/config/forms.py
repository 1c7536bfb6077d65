"""Written forms of settings, as JSON Schema: what a file may say for a value that a reader makes.

`written` stands above each reader. A form has a `title`, which the pages of settings show as the kind of a value.
Wherever a value is one text or number, a text with a `${VARIABLE}` may stand.
"""

import copy
from collections.abc import Callable, Hashable
from typing import NamedTuple, TypeVar

from edgeproxy.base.json_values import JsonObject, JsonValue

VARIABLE = r"\$\{"
"""Pattern of a text with a variable in it."""
PORT = ":[0-9]{1,5}"

ReaderT = TypeVar("ReaderT", bound=Callable[..., object])


class Form(NamedTuple):
    """The written form of a value."""

    schema: Callable[[JsonObject], JsonObject]
    """Returns the schema of what is written, given that of the plain value."""
    write: Callable[..., JsonValue] = str
    """Returns what would be written for a plain value; None: nothing that could be shown."""


_forms: dict[Hashable, Form] = {}


def written(
    schema: JsonObject | Callable[[JsonObject], JsonObject], write: Callable[..., JsonValue] = str
) -> Callable[[ReaderT], ReaderT]:
    """Register the form of the values that the decorated reader reads."""
    form = Form(schema if callable(schema) else lambda _: copy.deepcopy(schema), write)

    def register(reader: ReaderT) -> ReaderT:
        _forms[reader] = form
        return reader

    return register


def find_form(reader: Hashable) -> Form | None:
    """Find the form of a reader: its own attribute `form`, or the registered one."""
    form = getattr(reader, "form", None) or _forms.get(reader)
    return form if isinstance(form, Form) else None


def build_text(title: str, pattern: str, *examples: str) -> JsonObject:
    """Build the schema of a text that matches this pattern, or has a variable in it."""
    schema: JsonObject = {"type": "string", "title": title, "pattern": f"^({pattern})$|{VARIABLE}"}
    return {**schema, "examples": list(examples)} if examples else schema


def build_any_of(*schemas: JsonValue, title: str | None = None) -> JsonObject:
    """Build the schema of a value that matches one of these."""
    return {"anyOf": list(schemas)} if title is None else {"title": title, "anyOf": list(schemas)}


def build_words(*words: JsonValue, title: str | None = None) -> JsonObject:
    """Build the schema of one of these values, or of a variable for it."""
    return build_any_of({"enum": list(words)}, {"type": "string", "pattern": VARIABLE}, title=title)


def build_number(lowest: int, highest: int) -> JsonObject:
    """Build the schema of a whole number between these two."""
    number: JsonObject = {"type": "integer", "minimum": lowest, "maximum": highest}
    return build_any_of(number, {"type": "string", "pattern": f"^([0-9]+)$|{VARIABLE}"}, title=f"{lowest} to {highest}")


def build_one_or_more(members: JsonObject) -> JsonObject:
    """Build the schema of a list that is not empty, or of a single member; `members`: the schema of the list."""
    return build_any_of(members["items"], {**members, "minItems": 1})


OFF = build_words("off", False)
"""`off` is a switch to readers of YAML 1.1."""
