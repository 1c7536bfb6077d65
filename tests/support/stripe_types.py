"""Generates parts of the sandbox's description from the types in Stripe's package for Node.

Stripe generates these types from its OpenAPI specification. They have objects and operations that the project's copy
of the description lacks.

python -m tests.support.stripe_types
"""

import re
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from loadtest.testbed.process import ROOT

FOLDER = ROOT / "stripe_sandbox"
TYPES = Path(sys.prefix) / "npm/node_modules/stripe/cjs"
OTHER_DESCRIPTIONS = ("stripe-api.json", "stripe-api-balance.json", "stripe-api-subscriptions.json")

Schema = dict[str, Any]


class Part(NamedTuple):
    """A file of the description: operations by their module in the package, and objects."""

    operations: dict[str, tuple[str, ...]]
    objects: tuple[str, ...]


PARTS = {
    "stripe-api-payments.json": Part(
        {
            "PaymentMethods": ("list", "create", "retrieve", "update", "attach", "detach"),
            "SetupIntents": ("list", "create", "retrieve", "update", "cancel", "confirm"),
            "SetupAttempts": ("list",),
            "PaymentIntents": ("create", "update", "confirm"),
            "Charges": ("update",),
            "Customers": ("retrievePaymentMethod",),
            "CustomerSessions": ("create",),
            "EphemeralKeys": ("create", "del"),
            "Tokens": ("create", "retrieve"),
        },
        ("Card", "CustomerSession", "EphemeralKey", "PaymentMethod", "SetupAttempt", "SetupIntent", "Token"),
    ),
    "stripe-api-schedules.json": Part(
        {"SubscriptionSchedules": ("list", "create", "retrieve", "update", "cancel", "release")},
        ("SubscriptionSchedule",),
    ),
}
"""The files. Some operations replace those of stripe-api.json, which lack payment methods."""
UNSUPPORTED = frozenset(
    (
        *("account", "allowed_payment_method_types", "amount_details", "application", "application_fee"),
        *("application_fee_amount", "attach_to_self", "cvc_update", "excluded_payment_method_types"),
        *("flow_directions", "generated_from", "hooks", "issuing_card", "last_setup_error", "level3"),
        *("managed_payments", "mandate", "mandate_data", "nonce", "on_behalf_of", "payment_details"),
        *("payment_method_configuration", "person", "pii", "recipient", "setup_error", "single_use"),
        *("single_use_mandate", "source_transfer", "transfer", "transfer_data", "verification_session"),
    )
)
"""Names whose values the sandbox does not describe: other products, and payment methods other than cards."""


class Field(NamedTuple):
    """A field or a parameter, with its type as text."""

    name: str
    optional: bool
    written: str


class Interface(NamedTuple):
    """An interface, the names of its parents, and its fields."""

    extends: list[str]
    fields: list[Field]


Declarations = dict[str, Interface | str]
"""Interfaces and aliases of a module by their full names."""


@cache
def read_module(name: str) -> Declarations:
    """Read the declarations of a module."""
    folder = TYPES if name == "shared" else TYPES / "resources"
    text = re.sub(r"/\*.*?\*/", "", (folder / f"{name}.d.ts").read_text(), flags=re.DOTALL)
    declarations: Declarations = {}
    scopes: list[tuple[str, Interface | None]] = []
    for line in map(str.strip, text.splitlines()):
        namespace = ".".join(scope for scope, _ in scopes if scope)
        prefix = f"{namespace}." if namespace else ""
        inside = scopes[-1][1] if scopes else None
        if match := re.match(r"(?:export )?(?:declare )?namespace (\w+) \{", line):
            scopes.append((match[1], None))
        elif match := re.match(r"(?:export )?interface (\w+)(?:<\w+>)?(?: extends (.+?))? \{(\})?", line):
            declared = Interface([] if match[2] is None else match[2].split(", "), [])
            declarations[prefix + match[1]] = declared
            if match[3] is None:
                scopes.append(("", declared))
        elif match := re.match(r"(?:export )?type (\w+)(?:<\w+>)? = (.*);$", line):
            declarations[prefix + match[1]] = match[2]
        elif match := re.match(r"(?:export )?type (\w+) = \{$", line):
            declarations[prefix + match[1]] = "Metadata"
            scopes.append(("", Interface([], [])))
        elif inside is not None and (match := re.match(r"(?:'(\w+)'|(\w+))(\?)?: (.+);$", line)):
            inside.fields.append(Field(match[1] or match[2], bool(match[3]), match[4]))
        elif inside is not None and line.startswith("[name: string]"):
            inside.fields.append(Field("*", True, "string"))
        elif line.endswith("{"):
            scopes.append(("", None))
        elif line.startswith("}"):
            scopes.pop()
    return declarations


@cache
def find_module(name: str) -> str:
    """Return the module with an exported interface; the name may start with the module's folder."""
    folder, _, name = name.rpartition(".")
    pattern = re.compile(rf"^export interface {name}(?:<\w+>)?(?: extends .+)? \{{", re.MULTILINE)
    for path in (TYPES / "shared.d.ts", *sorted((TYPES / "resources" / folder).glob("*.d.ts"))):
        if pattern.search(path.read_text()):
            return f"{folder}/{path.name}".lstrip("/").removesuffix(".d.ts")
    raise LookupError(f"no module has {name}")


@cache
def list_payment_method_types() -> frozenset[str]:
    """Return Stripe's payment methods except cards."""
    alias = read_module("PaymentMethods")["PaymentMethod.Type"]
    assert isinstance(alias, str)
    return frozenset(re.findall(r"'(\w+)'", alias)) - {"card"}


@cache
def list_described_objects() -> frozenset[str]:
    """Return the objects of all descriptions, including this one."""
    schemas = [orjson.loads((FOLDER / name).read_bytes())["schemas"] for name in OTHER_DESCRIPTIONS]
    return frozenset(name for part in schemas for name in part) | {
        get_object_name(name) for part in PARTS.values() for name in part.objects
    }


def get_object_name(interface: str) -> str:
    """Return the `object` of an interface of the package; `deleted_` and the object for deleted ones."""
    declared = read_module(find_module(interface))[interface.rpartition(".")[2]]
    assert isinstance(declared, Interface)
    written = {field.name: field.written for field in declared.fields}
    return ("deleted_" if written.get("deleted") == "true" else "") + written["object"].strip("'")


class Writer:
    """Writes schemas of one module, for answers or parameters."""

    def __init__(self, module: str, *, parameters: bool) -> None:
        self._module = module
        self._parameters = parameters

    def write_object(self, name: str) -> Schema:
        """Write the schema of an interface."""
        declared = read_module(self._module)[name]
        assert isinstance(declared, Interface)
        fields = list(self._list_fields(self._module, declared))
        if [field.name for field in fields] == ["*"]:
            return {"type": "object", "additionalProperties": {"type": "string", "maxLength": 500}}
        scope = name.split(".")
        kept = [field for field in fields if self._parameters or field.name not in list_payment_method_types()]
        schema: Schema = {"type": "object"}
        if required := [field.name for field in kept if not field.optional and "null" not in split(field.written)]:
            schema["required"] = sorted(required)
        schema["properties"] = {field.name: self._write_field(field, scope) for field in kept}
        if self._parameters and scope[-1] == "PaymentMethodData":
            # The API takes cards here as it does from Stripe's own scripts in browsers; the package does not say so.
            card = Writer("PaymentMethods", parameters=True).write_object("PaymentMethodCreateParams.Card")
            schema["properties"]["card"] = card
            schema["properties"]["type"]["enum"].append("card")
        if self._parameters:
            schema["additionalProperties"] = False
        return schema

    def _list_fields(self, module: str, declared: Interface) -> Iterator[Field]:
        for parent in declared.extends:
            above = read_module("shared" if parent in read_module("shared") else module)[parent]
            assert isinstance(above, Interface)
            yield from self._list_fields(module, above)
        yield from declared.fields

    def _write_field(self, field: Field, scope: Sequence[str]) -> Schema:
        """Write the schema of a field, without payment methods other than cards."""
        if field.name in UNSUPPORTED or (self._parameters and field.name in list_payment_method_types()):
            pruned = self._write_type(field.written, scope, pruned=True)
            return {**pruned, "x-pruned": True}
        return self._write_type(field.written, scope)

    def _write_type(self, written: str, scope: Sequence[str], *, pruned: bool = False) -> Schema:
        options: list[Schema] = []
        literals: list[str] = []
        nullable = False
        for option in split(written):
            if option == "null":
                nullable = True
            elif option.startswith("'"):
                literals.append(option.strip("'"))
            elif option == "OtherString":  # Which values there may be later, no rule of today says.
                continue
            elif option.startswith("Emptyable<"):
                inner = self._write_type(option[len("Emptyable<") : -1], scope, pruned=pruned)
                options += [*inner.get("anyOf", [inner]), {"type": "string", "enum": [""]}]
            else:
                options.append({"type": "object"} if pruned else self._write_option(option, scope))
        if literals:
            options.insert(0, {"type": "string", "enum": literals})
        flat = [inner for option in options for inner in option.get("anyOf", [option])]
        schema = flat[0] if len(flat) == 1 else {"anyOf": flat}
        return {**schema, "nullable": True} if nullable and not self._parameters else schema

    def _write_option(self, option: str, scope: Sequence[str]) -> Schema:
        if match := re.fullmatch(r"(Array|ApiList)<(.+)>", option):
            items = {"type": "array", "items": self._write_type(match[2], scope)}
            return items if match[1] == "Array" else write_list(items)
        if option == "Decimal":
            return {"type": "string", "format": "decimal"}
        if option in ("string", "boolean"):
            return {"type": option}
        if option in ("number", "true", "void"):
            return {"number": {"type": "integer"}, "true": {"type": "boolean", "enum": [True]}, "void": {}}[option]
        for depth in range(len(scope), -1, -1):
            name = ".".join([*scope[:depth], option])
            declared = read_module(self._module).get(name)
            if isinstance(declared, str):
                return self._write_type(declared, name.split(".")[:-1])
            # A whole object that refers to another, or to its own kind, does so by reference.
            if declared is not None and ("." in name or self._parameters):
                return self.write_object(name)
        return self._write_reference(option)

    def _write_reference(self, name: str) -> Schema:
        """Write the schema of a type from another module."""
        if name in read_module("shared"):
            shared = Writer("shared", parameters=self._parameters)
            return shared.write_object(name)
        object_name = get_object_name(name.removeprefix("_"))  # That is how imports are renamed.
        if object_name in list_described_objects():
            return {"$ref": f"#/components/schemas/{object_name}"}
        properties = {"id": {"type": "string"}, "object": {"type": "string", "enum": [object_name]}}
        return {"type": "object", "properties": properties, "required": ["object"], "x-pruned": True}


def split(written: str) -> list[str]:
    """Split a union into its options."""
    options, depth, start = [], 0, 0
    for place, sign in enumerate(written):
        depth += (sign in "<{(") - (sign in ">})")
        if sign == "|" and not depth:
            options.append(written[start:place].strip())
            start = place + 1
    return [*options, written[start:].strip()]


def write_list(items: Schema) -> Schema:
    """Write the schema of a list in an answer."""
    properties = {
        "data": items,
        "has_more": {"type": "boolean"},
        "object": {"type": "string", "enum": ["list"]},
        "url": {"type": "string"},
    }
    return {"type": "object", "required": ["data", "has_more", "object", "url"], "properties": properties}


def write_operation(module: str, method: str) -> Schema:
    """Write an operation: its parameters, in the query or the body, and its answer."""
    types, code = ((TYPES / "resources" / f"{module}{suffix}").read_text() for suffix in (".d.ts", ".js"))
    declared = re.search(rf"^    {method}\(.*?params\??: (\w+), .*?\): (\w+)<(.+)>;", types, re.MULTILINE)
    called = re.search(rf"^    {method}\(.*?_makeRequest\('(\w+)', ['`](.+?)['`],", code, re.MULTILINE | re.DOTALL)
    assert declared is not None, (module, method)
    assert called is not None, (module, method)
    names = iter(["customer_id", "id"] if called[2].count("${") == 2 else ["id"])
    answered = declared[3].removeprefix("Response<").removesuffix(">")
    name = get_object_name(answered.removeprefix("Deleted"))
    answer: Schema = {"$ref": f"#/components/schemas/{name}"}
    if declared[2] == "ApiListPromise":
        answer = write_list({"type": "array", "items": answer})
    return {
        "id": f"{module}_{method}",
        "method": called[1],
        "path": re.sub(r"\$\{.+?\)\}", lambda _: f"{{{next(names)}}}", called[2]),
        "parameters": Writer(module, parameters=True).write_object(declared[1]),
        "answer": answer,
    }


def made(name: str) -> bytes:
    """Return a file, with an operation or an object on each line."""
    part = PARTS[name]
    operations = [orjson.dumps(write_operation(module, one)) for module, all in part.operations.items() for one in all]
    objects = [
        orjson.dumps(get_object_name(name))
        + b":"
        + orjson.dumps(Writer(find_module(name), parameters=False).write_object(name))
        for name in part.objects
    ]
    return b"\n".join([b'{"operations":[', b",\n".join(operations), b'],"schemas":{', b",\n".join(objects), b"}}\n"])


if __name__ == "__main__":
    for name in PARTS:
        (FOLDER / name).write_bytes(made(name))
