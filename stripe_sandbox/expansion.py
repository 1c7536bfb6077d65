"""Expansion: ids in a response become the objects that they name, where a call asks for it."""

from collections.abc import Callable, Mapping, Sequence

from stripe_sandbox.description import Description, Schema
from stripe_sandbox.json_values import JsonValue
from stripe_sandbox.refusal import invalid_request
from stripe_sandbox.transaction import Body, Fields, Transaction

DEPTH_MAX = 4

Included = Mapping[tuple[str, str], Callable[[Transaction, Body], JsonValue]]
"""Fields that are answered only when expanded, by type and field."""


def expand(tx: Transaction, answer: Body, schema: Schema, paths: Sequence[str], included: Included) -> None:
    """Expand these paths of a response, in place; raises ApiError."""
    for path in paths:
        names = path.split(".")
        if len(names) > DEPTH_MAX + (names[0] == "data"):
            raise invalid_request(f"You cannot expand more than {DEPTH_MAX} levels of a property.", "expand")
        _expand(tx, answer, schema, names, path, included)


def _expand(
    tx: Transaction, value: JsonValue, schema: Schema, names: Sequence[str], path: str, included: Included
) -> None:
    description = tx.account.description
    if isinstance(value, list):
        for member in value:
            _expand(tx, member, description.resolve(schema).get("items", {}), names, path, included)
        return
    if not isinstance(value, dict):
        return
    field = _find_field(description, schema, value, names[0])
    if field is None:
        raise invalid_request(f"This property cannot be expanded ({path}).", "expand")
    name, key = names[0], (value.get("object", ""), names[0])
    child = value.get(name)
    if isinstance(child, str) and _is_expandable(description, field):
        child_body = tx.find_any(child)
        if child_body is not None:
            value[name] = tx.render(child_body)
    elif (
        isinstance(child, list) and child and isinstance(child[0], str) and _is_expandable(description, field["items"])
    ):
        value[name] = [
            child_of if (child_body := tx.find_any(child_of)) is None else tx.render(child_body) for child_of in child
        ]
    elif child is None and key in included:
        value[name] = included[key](tx, value)
    elif len(names) == 1 and not isinstance(child, dict | list) and (child or not _is_expandable(description, field)):
        raise invalid_request(f"This property cannot be expanded ({path}).", "expand")
    if len(names) > 1:
        _expand(tx, value.get(name), field, names[1:], path, included)


def _find_field(description: Description, schema: Schema, value: Fields, name: str) -> Schema | None:
    """Find the schema of a field of this value."""
    for option in description.list_options(schema):
        for choice in description.list_options(option):
            field: Schema | None = choice.get("properties", {}).get(name)
            kind = choice.get("properties", {}).get("object", {}).get("enum", [value.get("object")])
            if field is not None and value.get("object") in kind:
                return field
    return None


def _is_expandable(description: Description, field: Schema) -> bool:
    """Return whether a field is an id or the object that it names."""
    options = field.get("anyOf", ())
    return any(option.get("type") == "string" for option in options) and any(
        "$ref" in option or option.get("type") == "object" for option in options
    )
