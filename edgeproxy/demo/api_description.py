"""The OpenAPI description of the API on sale, for the reference on the customers' pages: routes of config/edge.yaml."""

from typing import Final

from edgeproxy.base.json_values import JsonObject

JSON: Final = "application/json"
RECEIVED: Final[JsonObject] = {
    "type": "object",
    "properties": {
        "args": {"type": "object", "description": "The parameters of the query."},
        "headers": {"type": "object", "description": "The header fields that the API received."},
        "url": {"type": "string", "description": "The address of the request."},
    },
}
ANSWER: Final[JsonObject] = {"description": "The request as received.", "content": {JSON: {"schema": RECEIVED}}}
NOTE: Final[JsonObject] = {
    "content": {
        JSON: {
            "schema": {
                "type": "object",
                "required": ["text"],
                "properties": {"text": {"type": "string", "description": "Any text."}},
            },
            "example": {"text": "Hello"},
        }
    }
}
STATUS: Final[JsonObject] = {
    "name": "code",
    "in": "path",
    "required": True,
    "description": "The status of the answer, such as 204.",
    "schema": {"type": "integer"},
}
DESCRIPTION: Final[JsonObject] = {
    "openapi": "3.1.0",
    "info": {"title": "httpbin", "version": "1", "description": "Answers with the request that it received."},
    "tags": [
        {"name": "requests", "description": "Requests that are answered with themselves."},
        {"name": "answers", "description": "Answers that the request describes."},
    ],
    "paths": {
        "/get": {"get": {"tags": ["requests"], "summary": "Read a request back", "responses": {"200": ANSWER}}},
        "/post": {
            "post": {
                "tags": ["requests"],
                "summary": "Read a request with a body back",
                "requestBody": NOTE,
                "responses": {"200": ANSWER},
            }
        },
        "/status/{code}": {
            "get": {
                "tags": ["answers"],
                "summary": "Receive a status",
                "parameters": [STATUS],
                "responses": {"default": {"description": "An answer with this status."}},
            }
        },
    },
}
