"""Parameters: forms and JSON are parsed by the description, or refused with the name of the parameter."""

import re
from collections.abc import Iterable, Mapping

from stripe_sandbox.description import Schema
from stripe_sandbox.json_values import JsonValue
from stripe_sandbox.refusal import ApiError, invalid_request, unsupported
from stripe_sandbox.transaction import Body

KEY = re.compile(r"([^\[\]]+)((?:\[[^\[\]]*\])*)")
INTEGER = re.compile(r"-?[0-9]{1,18}")
DECIMAL = re.compile(r"-?[0-9]{1,18}(\.[0-9]{1,12})?")
DEPTH_MAX = 8
WAYS_TO_PAY, OLD_WAYS_TO_PAY = "allowed_payment_method_types", "payment_method_types"
"""The parameter for allowed payment methods, now and in older versions of the API."""
METADATA_KEYS_MAX = 50
METADATA_KEY_MAX = 40

Written = str | int | float | bool | None | dict[str, "Written"] | list["Written"]
"""A parameter of a form, all of whose values are texts, or of JSON."""


def parse_pairs(pairs: Iterable[tuple[str, str]]) -> dict[str, Written]:
    """Parse the pairs of a form, `a[b][0]=c` as `{a: {b: {"0": c}}}`; `a[]` numbers itself."""
    root: dict[str, Written] = {}
    for key, value in pairs:
        match = KEY.fullmatch(key)
        if match is None:
            raise invalid_request(f"Received unknown parameter: {key}", key, "parameter_unknown")
        names = [match[1], *re.findall(r"\[([^\[\]]*)\]", match[2])]
        if len(names) > DEPTH_MAX:
            raise invalid_request(f"Received unknown parameter: {key}", key, "parameter_unknown")
        inner = root
        for name in names[:-1]:
            child = inner.setdefault(name or str(len(inner)), {})
            if not isinstance(child, dict):
                raise invalid_request("Invalid object", key)
            inner = child
        inner[names[-1] or str(len(inner))] = value
    return root


def take_ways_to_pay(schema: Schema, written: Written, *, is_older: bool) -> None:
    """Take the ways to pay that a call allows out of its parameters: a card is the only one here. Raises ApiError if
    none of them is a card.

    `is_older` calls name them as older versions of the API do.
    """
    if not isinstance(written, dict) or WAYS_TO_PAY not in schema.get("properties", {}):
        return
    for name in (WAYS_TO_PAY, *([OLD_WAYS_TO_PAY] if is_older else [])):
        if name in written:
            ways = _parse_array({"items": {"type": "string"}}, written.pop(name), name)
            if not isinstance(ways, list) or "card" not in ways:
                raise unsupported(f"{name} without card", name)


def parse_parameters(schema: Schema, written: Written) -> Body:
    """Parse parameters by their schema; raises ApiError."""
    value = _parse(schema, written, "")
    assert isinstance(value, dict)
    return value


def _parse(schema: Schema, written: Written, path: str) -> JsonValue:
    if schema.get("x-pruned"):
        raise unsupported(f"the parameter {path}", path)
    options = schema.get("anyOf")
    if options is None:
        return _parse_one(schema, written, path)
    refusal: ApiError | None = None
    for option in sorted(options, key=lambda item: _fits(item, written), reverse=True):
        try:
            return _parse_one(option, written, path)
        except ApiError as error:
            refusal = refusal or error
    assert refusal is not None
    raise refusal


def _fits(option: Schema, written: Written) -> int:
    """Return how well an alternative fits a value."""
    if isinstance(written, dict | list):
        return int(option.get("type") in ("object", "array"))
    if "enum" in option:
        return 2 * int(written in option["enum"]) - 1
    return int(option.get("type") not in ("object", "array"))


def _parse_one(schema: Schema, written: Written, path: str) -> JsonValue:
    reader = READERS.get(schema.get("type", ""))
    return written if reader is None else reader(schema, written, path)


def _parse_object(schema: Schema, written: Written, path: str) -> JsonValue:
    if not isinstance(written, dict):
        raise invalid_request("Invalid object", path)
    properties, others = schema.get("properties", {}), schema.get("additionalProperties", False)
    unknown = [name for name in written if name not in properties] if others is False else []
    if unknown:
        names = [_join(path, name) for name in unknown]
        what = "parameter" if len(names) == 1 else "parameters"
        raise invalid_request(f"Received unknown {what}: {', '.join(names)}", names[0], "parameter_unknown")
    value = {}
    for name, field in written.items():
        inner = properties.get(name, others)
        value[name] = _parse(inner, field, _join(path, name)) if isinstance(inner, Mapping) else field
    for name in schema.get("required", ()):
        if name not in written:
            named = _join(path, name)
            raise invalid_request(f"Missing required param: {named}.", named, "parameter_missing")
        if written[name] == "":
            named = _join(path, name)
            raise invalid_request(f"You passed an empty string for '{named}'.", named, "parameter_invalid_empty")
    if path.rpartition("[")[2].rstrip("]") == "metadata":
        _check_metadata(value, path)
    return value


def _check_metadata(metadata: Mapping[str, JsonValue], path: str) -> None:
    if len(metadata) > METADATA_KEYS_MAX:
        raise invalid_request(f"Metadata can have up to {METADATA_KEYS_MAX} keys.", path)
    for name in metadata:
        if len(name) > METADATA_KEY_MAX:
            raise invalid_request(f"Metadata keys can be up to {METADATA_KEY_MAX} characters long.", _join(path, name))


def _parse_array(schema: Schema, written: Written, path: str) -> JsonValue:
    if isinstance(written, dict):
        if not all(index.isdecimal() for index in written):
            raise invalid_request("Invalid array", path)
        written = [written[index] for index in sorted(written, key=int)]
    if not isinstance(written, list):
        raise invalid_request("Invalid array", path)
    return [_parse(schema.get("items", {}), item, f"{path}[{index}]") for index, item in enumerate(written)]


def _parse_string(schema: Schema, written: Written, path: str) -> JsonValue:
    if not isinstance(written, str):
        raise invalid_request("Invalid string: must be a string", path)
    allowed = schema.get("enum")
    if allowed is not None and written not in allowed:
        *some, last = allowed
        listed = f"{', '.join(some)} or {last}" if some else last
        raise invalid_request(f"Invalid {path}: must be one of {listed}", path)
    most = schema.get("maxLength")
    if most is not None and len(written) > most:
        raise invalid_request(f"Invalid string: {written[:20]}…; must be at most {most} characters", path)
    if schema.get("format") == "decimal" and not DECIMAL.fullmatch(written):
        raise invalid_request(f"Invalid decimal: {written}; must have at most 12 decimal places", path)
    return written


def _parse_integer(_: Schema, written: Written, path: str) -> JsonValue:
    if isinstance(written, int) and not isinstance(written, bool):
        return written
    if not isinstance(written, str) or not INTEGER.fullmatch(written):
        raise invalid_request(f"Invalid integer: {written}", path, "parameter_invalid_integer")
    return int(written)


def _parse_number(_: Schema, written: Written, path: str) -> JsonValue:
    if isinstance(written, str) and DECIMAL.fullmatch(written):
        return float(written)
    raise invalid_request(f"Invalid decimal: {written}", path)


def _parse_boolean(_: Schema, written: Written, path: str) -> JsonValue:
    if isinstance(written, bool):
        return written
    if written not in ("true", "false"):
        raise invalid_request(f"Invalid boolean: {written}", path)
    return written == "true"


READERS = {
    "object": _parse_object,
    "array": _parse_array,
    "string": _parse_string,
    "integer": _parse_integer,
    "number": _parse_number,
    "boolean": _parse_boolean,
}


def _join(path: str, name: str) -> str:
    return f"{path}[{name}]" if path else name
