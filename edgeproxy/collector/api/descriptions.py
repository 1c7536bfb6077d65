"""Texts of the OpenAPI description: docstrings of fields, and texts for header fields of answers.

The text of an API field is the docstring below it. `describe_fields` reads it from the source of the class, so that
importing the models costs nothing. Fields of the configuration have descriptions.
"""

import ast
import functools
import inspect
import sys
from collections.abc import Mapping
from itertools import pairwise
from types import MappingProxyType
from typing import Final

from pydantic import BaseModel
from typing_extensions import get_original_bases

from edgeproxy.collector.accounts.models import CreateCustomerRequest, UpdateCustomerRequest
from edgeproxy.collector.api.examples import Schema
from edgeproxy.config.schema import LINK

PACKAGE = "edgeproxy."
SAME_FIELDS: Final[Mapping[type, type]] = MappingProxyType({UpdateCustomerRequest: CreateCustomerRequest})
"""Models with the fields of another model, and that model."""


RESPONSE_HEADERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "ETag": "The version of the object in the answer, for If-Match.",
        "Idempotent-Replayed": "`true` if this is the answer to an earlier request with the same Idempotency-Key.",
        "Location": "The address of the document.",
    }
)


@functools.cache
def describe_fields(model: type) -> Mapping[str, str]:
    """Return the text of each field of a pydantic model or TypedDict, including inherited fields.

    The text is the field's description, if it has one as in the configuration, or the docstring below the field.
    """
    descriptions: dict[str, str] = {}
    if model in SAME_FIELDS:
        descriptions |= describe_fields(SAME_FIELDS[model])
    for base in reversed(get_original_bases(model)):
        if isinstance(base, type):
            descriptions |= describe_fields(base)
    if model.__module__.startswith(PACKAGE):
        descriptions |= _read_module(model.__module__).get(model.__name__, {})
    if issubclass(model, BaseModel):
        fields = model.model_fields.items()
        descriptions |= {name: LINK.sub(r"\1", field.description) for name, field in fields if field.description}
    return descriptions


@functools.cache
def _read_module(name: str) -> Mapping[str, Mapping[str, str]]:
    """Return the docstrings below the fields of each class of a module, by class and field."""
    tree = ast.parse(inspect.getsource(sys.modules[name]))
    return {node.name: _read_class(node) for node in tree.body if isinstance(node, ast.ClassDef)}


def _read_class(node: ast.ClassDef) -> dict[str, str]:
    descriptions = {}
    for field, below in pairwise(node.body):
        match field, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                descriptions[name] = " ".join(text.split())
    return descriptions


def add_texts(schema: Schema, model: type, aliases: Mapping[str, str]) -> Schema:
    """Add a description to each field in the schema of a model."""
    properties = schema.get("properties", {})
    for field, text in describe_fields(model).items():
        shape = properties.get(aliases.get(field, field))
        if shape is not None:
            shape.setdefault("description", text)
    return schema
