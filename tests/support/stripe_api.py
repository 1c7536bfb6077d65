"""Extracts stripe_sandbox/stripe-api.json from Stripe's OpenAPI description.

python -m tests.support.stripe_api ../shared/data/stripe-openapi.json
"""

import sys
from pathlib import Path
from typing import Any

import orjson

from loadtest.testbed.process import ROOT

MADE = ROOT / "stripe_sandbox/stripe-api.json"
WHOLE = ROOT.parent / "shared/data/stripe-openapi.json"
EXAMPLES = ROOT.parent / "shared/data/stripe-fixtures3.json"
SAID = ("description", "summary", "x-resourceId")
"""Members for people only, which are left out."""


def _asked(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "schema": schema}


PRUNED: dict[str, dict[str, Any]] = {
    "/v2/core/events": {
        "get": {
            "operationId": "V2CoreEvents_list",
            "parameters": [
                _asked(
                    "created",
                    {
                        "type": "object",
                        "properties": {
                            name: {"type": "string", "format": "date-time"} for name in ("gt", "gte", "lt", "lte")
                        },
                        "additionalProperties": False,
                    },
                ),
                _asked("limit", {"type": "integer"}),
                _asked("object_id", {"type": "string"}),
                _asked("types", {"type": "array", "items": {"type": "string"}}),
                _asked("page", {"type": "string"}),
            ],
            "responses": {
                "200": {
                    "content": {
                        "application/json": {
                            "schema": {
                                "type": "object",
                                "required": ["data"],
                                "properties": {
                                    "data": {"type": "array", "items": {"$ref": "#/components/schemas/v2.core.event"}},
                                    "next_page_url": {"type": "string", "nullable": True},
                                    "previous_page_url": {"type": "string", "nullable": True},
                                },
                            }
                        }
                    }
                }
            },
        }
    }
}
"""Members that billing uses and the description lacks, from the types of stripe 16.1.0 for Python. `page` occurs only
in the addresses of further pages.
"""


def bare(schema: Any) -> Any:
    """Return a schema without members for people."""
    if isinstance(schema, list):
        return [bare(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    # The names of properties are no words of the schema's.
    return {
        name: {key: bare(one) for key, one in value.items()} if name == "properties" else bare(value)
        for name, value in schema.items()
        if name not in SAID or not isinstance(value, str)
    }


def operation(path: str, method: str, said: dict[str, Any]) -> dict[str, Any]:
    """Return one operation, with its query or body parameters as one object."""
    query = [one for one in said.get("parameters", ()) if one["in"] == "query"]
    parameters: dict[str, Any] = {
        "type": "object",
        "properties": {one["name"]: bare(one["schema"]) for one in query},
        "additionalProperties": False,
    }
    required = [one["name"] for one in query if one["required"]]
    for content in said.get("requestBody", {}).get("content", {}).values():
        body = bare(content["schema"])
        parameters["properties"] |= body.get("properties", {})
        required += body.get("required", [])
    if required:
        parameters["required"] = required
    answer = bare(said["responses"]["200"]["content"]["application/json"]["schema"])
    return {
        "id": said["operationId"],
        "method": method.upper(),
        "path": path,
        "parameters": parameters,
        "answer": answer,
    }


def made(whole: dict[str, Any]) -> bytes:
    """Return the file, with an operation or an object on each line."""
    operations = [
        operation(path, method, said)
        for path, methods in (whole["paths"] | PRUNED).items()
        for method, said in methods.items()
    ]
    schemas = {name: bare(schema) for name, schema in whole["components"]["schemas"].items()}
    lines = [orjson.dumps(operation) for operation in operations]
    objects = [orjson.dumps(name) + b":" + orjson.dumps(schema) for name, schema in schemas.items()]
    version = orjson.dumps(whole["info"]["version"])
    return b"\n".join(
        [
            b'{"version":' + version + b',"operations":[',
            b",\n".join(lines),
            b'],"schemas":{',
            b",\n".join(objects),
            b"}}\n",
        ]
    )


if __name__ == "__main__":
    MADE.write_bytes(made(orjson.loads(Path(sys.argv[1]).read_bytes())))
