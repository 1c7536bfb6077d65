"""JSON Schemas of the files, for completion and checks in operators' editors.

They are generated from the models. A field provides its type, default and description, and its reader the written form
(forms.py). A text with a `${VARIABLE}` is allowed for every single text or number.
"""

import re
from typing import ClassVar

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import core_schema

from edgeproxy.base.json_values import JsonObject, JsonValue
from edgeproxy.config.forms import Form, build_any_of, build_words, find_form
from edgeproxy.config.part import FieldMark, Part

DIALECT = "https://json-schema.org/draft/2020-12/schema"
UNKNOWN = Form(lambda inner: build_any_of(inner, {"type": "string"}))
"""The default form of a reader: the plain value, or any text."""
LINK = re.compile(r"\[([^\]]+)\]\([^)]+\)")


class FileSchema(GenerateJsonSchema):
    """Generates the schema of the written values. Pydantic's own would describe the values after reading."""

    files: ClassVar = True
    """True if the schema describes files. In files, values are as written, and settings of other files are optional."""

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonObject:
        """Generate the schema of a part, using the marks of its fields."""
        generated: JsonObject = super().model_schema(schema)
        model: type[BaseModel] = schema["cls"]
        fields = {field.alias or name: field for name, field in model.model_fields.items()}
        required = generated.pop("required", ())
        if isinstance(required, list):
            needed = [name for name in required if not (self.files and FieldMark.FILLED in fields[name].metadata)]
            generated |= {"required": needed} if needed else {}
        properties = generated.get("properties")
        for name, shape in properties.items() if isinstance(properties, dict) else ():
            # Set again, because pydantic drops the description of the field's model.
            note = " Needs a restart." if FieldMark.RESTART in fields[name].metadata else ""
            if fields[name].description is not None:
                shape["description"] = f"{fields[name].description}{note}"
        return generated

    def function_before_schema(self, schema: core_schema.BeforeValidatorFunctionSchema) -> JsonObject:
        """Generate the schema of the reader's input instead of its result."""
        form = find_form(schema["function"]["function"]) or UNKNOWN
        return form.schema(super().function_before_schema(schema))

    def handle_invalid_for_json_schema(self, schema: core_schema.CoreSchema, error_info: str) -> JsonObject:
        """Allow any plain value for a type that JSON Schema cannot describe, because a reader makes it from a text."""
        return {}

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonObject:
        """Show the default as it would be written. Whole parts show the defaults of their fields."""
        generated: JsonObject = self.generate_inner(schema["schema"])
        default = schema.get("default") if self.files else None
        inner = schema["schema"]
        if inner["type"] == "function-before" and "default" in schema and self.files:
            default = (find_form(inner["function"]["function"]) or UNKNOWN).write(default)
        if isinstance(default, tuple) and all(isinstance(member, str) for member in default):
            default = list(default)
        if isinstance(default, str | int) or (isinstance(default, list) and default):
            generated["default"] = default
        return generated

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonObject:
        """Leave out that a field may be null, because fields without a value are not written."""
        return self.generate_inner(schema["schema"])

    def literal_schema(self, schema: core_schema.LiteralSchema) -> JsonObject:
        """Generate the schema of one of these words. YAML 1.1 reads `off` as a boolean."""
        expected = schema["expected"]
        return build_words(*expected, *([False] if "off" in expected else []))

    def tagged_union_schema(self, schema: core_schema.TaggedUnionSchema) -> JsonObject:
        """Generate the schema of one of these types, which are told apart by their values."""
        return build_any_of(*map(self.generate_inner, schema["choices"].values()))

    def dict_schema(self, schema: core_schema.DictSchema) -> JsonObject:
        """Generate the schema of a mapping of names."""
        generated: JsonObject = super().dict_schema(schema)
        return {**generated, "additionalProperties": False} if "patternProperties" in generated else generated

    def field_title_should_be_set(self, schema: object) -> bool:
        """Leave out the titles of fields, because names say enough."""
        return False


def build_schema(file: str, root: type[Part]) -> JsonObject:
    """Build the JSON Schema (draft 2020-12) of a file and its includes. Descriptions contain links of the pages."""
    generated: JsonObject = root.model_json_schema(schema_generator=FileSchema)
    include: JsonObject = {
        **build_any_of({"type": "string", "title": "file"}, {"type": "array", "items": {"type": "string"}}),
        "description": "Further files, relative to this one. They add to named settings (such as `tiers`) and lists "
        "(such as `keys`); a name that two files define is an error.",
    }
    properties = generated["properties"]
    assert isinstance(properties, dict)
    properties["include"] = include
    generated.pop("title", None)
    return {"$schema": DIALECT, "title": f"edgeproxy: {file}", **generated}


def remove_links(schema: JsonObject) -> JsonObject:
    """Return a schema for readers outside the pages: links in descriptions are replaced by their words."""
    return {
        key: LINK.sub(r"\1", value) if key == "description" and isinstance(value, str) else _remove_links(value)
        for key, value in schema.items()
    }


def _remove_links(value: JsonValue) -> JsonValue:
    if isinstance(value, dict):
        return remove_links(value)
    return [_remove_links(member) for member in value] if isinstance(value, list) else value
