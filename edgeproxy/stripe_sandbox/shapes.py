"""Objects as they are answered: with every field of the description, unset ones null."""

from collections.abc import Callable, Mapping
from typing import Any

from edgeproxy.stripe_sandbox.description import Description, Schema

Shape = Callable[[Any], Any]


class Shapes:
    """Completes objects by their type. Fields that begin with an underscore are the sandbox's own and are left out."""

    def __init__(self, description: Description) -> None:
        self._description = description
        self._known: dict[str, Shape] = {}

    def complete(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return a complete object; raises LookupError where a required field is missing, a bug of the sandbox."""
        kind = body["object"]
        if kind in ("list", "search_result"):
            return {**body, "data": [self.complete(one) for one in body["data"]]}
        if body.get("deleted"):
            return dict(body)
        shape = self._known.get(kind)
        if shape is None:
            shape = self._known[kind] = self._whole(kind)
        value: dict[str, Any] = shape(body)
        return value

    def _whole(self, kind: str) -> Shape:
        schema = self._description.schemas.get(kind)
        if schema is None:  # Left out of the description, such as payment_method.
            return lambda value: {name: field for name, field in value.items() if not name.startswith("_")}
        return self._of(schema, kind)

    def _of(self, schema: Schema, where: str) -> Shape:
        if "$ref" in schema:
            return self._reference
        if "anyOf" in schema:
            return self._alternatives(schema, where)
        if schema.get("type") == "array":
            item = self._of(schema.get("items", {}), where)
            return lambda value: [item(one) for one in value]
        if schema.get("type") == "object" and schema.get("properties") and not schema.get("x-pruned"):
            return self._fields(schema, where)
        return lambda value: value

    def _reference(self, value: Any) -> Any:
        return self.complete(value) if isinstance(value, Mapping) else value

    def _alternatives(self, schema: Schema, where: str) -> Shape:
        inline = [one for one in schema["anyOf"] if one.get("type") == "object" and "$ref" not in one]
        shape = self._of(inline[0], where) if inline else self._reference
        return lambda value: shape(value) if isinstance(value, Mapping) else value

    def _fields(self, schema: Schema, where: str) -> Shape:
        required = schema.get("required", ())
        fields = [
            (name, self._of(inner, f"{where}.{name}"), inner.get("nullable", False), name in required)
            for name, inner in schema["properties"].items()
        ]

        def shape(value: Mapping[str, Any]) -> dict[str, Any]:
            made = {}
            for name, inner, nullable, needed in fields:
                field = value.get(name)
                if field is not None:
                    made[name] = inner(field)
                elif nullable:
                    made[name] = None
                elif needed:
                    raise LookupError(f"{where} has no {name}")
            return made

        return shape
