"""JSON Schemas of the files, by which editors complete and check what operators write.

They are made of the models: a field has its type, default and description, and its reader the written form (forms.py).
Wherever a value is one text or number, a text with a `${VARIABLE}` may stand.
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
"""The form of a reader without one: the plain value, or any text."""
LINK = re.compile(r"\[([^\]]+)\]\([^)]+\)")


class FileSchema(GenerateJsonSchema):
    """Generates the schema of what is written, where pydantic's own would be of what was read."""

    files: ClassVar = True
    """Whether the schema is of files: then a setting that another file may have is not required, and defaults are as
    written."""

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonObject:
        """Generate the schema of a part, by the marks of its fields."""
        generated: JsonObject = super().model_schema(schema)
        model: type[BaseModel] = schema["cls"]
        fields = {field.alias or name: field for name, field in model.model_fields.items()}
        required = generated.pop("required", ())
        if isinstance(required, list):
            needed = [name for name in required if not (self.files and FieldMark.FILLED in fields[name].metadata)]
            generated |= {"required": needed} if needed else {}
        properties = generated.get("properties")
        for name, shape in properties.items() if isinstance(properties, dict) else ():
            # Again, as pydantic leaves out what the model of the field says of itself.
            note = " Needs a restart." if FieldMark.RESTART in fields[name].metadata else ""
            if fields[name].description is not None:
                shape["description"] = f"{fields[name].description}{note}"
        return generated

    def function_before_schema(self, schema: core_schema.BeforeValidatorFunctionSchema) -> JsonObject:
        """Generate the schema of what the reader takes instead of what it returns."""
        form = find_form(schema["function"]["function"]) or UNKNOWN
        return form.schema(super().function_before_schema(schema))

    def handle_invalid_for_json_schema(self, schema: core_schema.CoreSchema, error_info: str) -> JsonObject:
        """Allow any plain value of a type that JSON Schema cannot describe: a reader makes it of a text."""
        return {}

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonObject:
        """Show the default as it would be written; those of whole parts are the defaults of their fields."""
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
        """Leave out that a field may be null: one that has no value is not written."""
        return self.generate_inner(schema["schema"])

    def literal_schema(self, schema: core_schema.LiteralSchema) -> JsonObject:
        """Generate the schema of one of these words. `off` is a switch to readers of YAML 1.1."""
        expected = schema["expected"]
        return build_words(*expected, *([False] if "off" in expected else []))

    def tagged_union_schema(self, schema: core_schema.TaggedUnionSchema) -> JsonObject:
        """Generate the schema of one of these, which say themselves which."""
        return build_any_of(*map(self.generate_inner, schema["choices"].values()))

    def dict_schema(self, schema: core_schema.DictSchema) -> JsonObject:
        """Generate the schema of a mapping of names."""
        generated: JsonObject = super().dict_schema(schema)
        return {**generated, "additionalProperties": False} if "patternProperties" in generated else generated

    def field_title_should_be_set(self, schema: object) -> bool:
        """Leave out the titles of fields: names say enough."""
        return False


def build_schema(file: str, root: type[Part]) -> JsonObject:
    """Build the JSON Schema of a file and of what it includes, draft 2020-12. Descriptions have links of the pages."""
    generated: JsonObject = root.model_json_schema(schema_generator=FileSchema)
    include: JsonObject = {
        **build_any_of({"type": "string", "title": "file"}, {"type": "array", "items": {"type": "string"}}),
        "description": "Further files, relative to this one. They add to what is named (such as `tiers`) and listed "
        "(such as `keys`); a name that two files define is an error.",
    }
    properties = generated["properties"]
    assert isinstance(properties, dict)
    properties["include"] = include
    generated.pop("title", None)
    return {"$schema": DIALECT, "title": f"edgeproxy: {file}", **generated}


def remove_links(schema: JsonObject) -> JsonObject:
    """Return a schema for those who do not read it on a page: with the words of each link in a description alone."""
    return {
        key: LINK.sub(r"\1", value) if key == "description" and isinstance(value, str) else _remove_links(value)
        for key, value in schema.items()
    }


def _remove_links(value: JsonValue) -> JsonValue:
    if isinstance(value, dict):
        return remove_links(value)
    return [_remove_links(member) for member in value] if isinstance(value, list) else value
