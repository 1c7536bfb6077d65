"""Objects in responses: with every field of the description, unset ones null."""

from collections.abc import Callable, Mapping

from stripe_sandbox.description import Description, Schema
from stripe_sandbox.json_values import JsonObject, JsonValue

ObjectShape = Callable[[Mapping[str, JsonValue]], JsonObject]
Shape = Callable[[JsonValue], JsonValue]


class Shapes:
    """Completes objects by their type. Fields that begin with an underscore are the sandbox's own and are left out."""

    def __init__(self, description: Description) -> None:
        self._description = description
        self._by_type: dict[str, ObjectShape] = {}

    def complete(self, body: Mapping[str, JsonValue]) -> JsonObject:
        """Return a complete object. Raises LookupError if a required field is missing, a bug of the sandbox."""
        kind = str(body["object"])
        if kind in ("list", "search_result"):
            return {**body, "data": _map_members(self._complete_value, body["data"])}
        if body.get("deleted"):
            return dict(body)
        if kind not in self._by_type:
            self._by_type[kind] = self._build_type(kind)
        return self._by_type[kind](body)

    def _complete_value(self, value: JsonValue) -> JsonValue:
        return self.complete(value) if isinstance(value, Mapping) else value

    def _build_type(self, kind: str) -> ObjectShape:
        schema = self._description.schemas.get(kind)
        if schema is not None and _has_fields(schema):
            return self._build_object(schema, kind)
        # Types outside the description, for example payment_method.
        return lambda body: {name: field for name, field in body.items() if not name.startswith("_")}

    def _build_shape(self, schema: Schema, where: str) -> Shape:
        if "$ref" in schema:
            return self._complete_value
        if "anyOf" in schema:
            inline = [option for option in schema["anyOf"] if option.get("type") == "object" and "$ref" not in option]
            return self._build_shape(inline[0], where) if inline else self._complete_value
        if schema.get("type") == "array":
            member = self._build_shape(schema.get("items", {}), where)
            return lambda value: _map_members(member, value)
        if _has_fields(schema):
            shape = self._build_object(schema, where)
            return lambda value: shape(value) if isinstance(value, Mapping) else value
        return lambda value: value

    def _build_object(self, schema: Schema, where: str) -> ObjectShape:
        required = schema.get("required", ())
        fields = [
            (name, self._build_shape(inner, f"{where}.{name}"), inner.get("nullable", False), name in required)
            for name, inner in schema["properties"].items()
        ]

        def shape(body: Mapping[str, JsonValue]) -> JsonObject:
            completed: JsonObject = {}
            for name, inner, is_nullable, is_required in fields:
                field = body.get(name)
                if field is not None:
                    completed[name] = inner(field)
                elif is_nullable:
                    completed[name] = None
                elif is_required:
                    raise LookupError(f"{where} has no {name}")
            return completed

        return shape


def _has_fields(schema: Schema) -> bool:
    return bool(schema.get("type") == "object" and schema.get("properties") and not schema.get("x-pruned"))


def _map_members(shape: Shape, value: JsonValue) -> list[JsonValue]:
    return [shape(member) for member in value] if isinstance(value, list | tuple) else []
