"""Commands that call one endpoint of the collector's API, each stated as a row.

A row names the method and the path, the parameters, and how the answer is printed. A parameter named in the path goes
into the path. Others go into the query of a GET, and into the body of any other request.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from inspect import Parameter as Argument
from inspect import Signature
from typing import Annotated, Any, NamedTuple
from urllib.parse import parse_qsl, quote

import typer

from edgeproxy.base.json_values import JsonDocument, JsonObject, JsonValue
from edgeproxy.cli.api import Api, Authorities, CustomerRef, Json, Key, Url, format_money, show, table

Arguments = Mapping[str, Any]
"""The arguments of a call, by the names of their parameters."""
Compute = Callable[[Api, Arguments], JsonValue]
"""Computes a value for the request from the arguments."""
BuildBody = Callable[[Api, Arguments], JsonObject]
Print = Callable[[JsonDocument, Arguments], None]
"""Prints the JSON of an answer."""

PLACEHOLDER = re.compile(r"\{(\w+)\}")
REQUIRED = Argument.empty


class Parameter(NamedTuple):
    """A parameter of a command. If it is optional and not given, the request does not have it."""

    name: str
    """Its name in the request, too; a word of Python ends with an underscore here."""
    annotation: object
    default: object
    compute: Compute | None
    """Computes the value in the request, if that is not the argument itself."""

    def is_in(self, values: Mapping[str, JsonValue]) -> bool:
        """Return whether the body has this parameter, of these values that are left for it."""
        return self.name in values and (self.default is REQUIRED or values[self.name] is not None)


def argument(
    name: str,
    about: str,
    kind: object = str,
    *,
    metavar: str | None = None,
    default: object = REQUIRED,
    compute: Compute | None = None,
    min: int | None = None,
    max: int | None = None,
) -> Parameter:
    """Build a positional parameter."""
    info = typer.Argument(metavar=metavar or name.upper(), help=about, min=min, max=max)
    return _build_parameter(name, kind, info, default, compute)


def option(
    name: str,
    about: str,
    *flags: str,
    kind: object = str | None,
    default: object = None,
    compute: Compute | None = None,
    metavar: str | None = None,
    min: int | None = None,
    max: int | None = None,
    callback: Callable[..., object] | None = None,
) -> Parameter:
    """Build an option."""
    info = typer.Option(*flags, metavar=metavar, help=about, min=min, max=max, callback=callback)
    return _build_parameter(name, kind, info, default, compute)


def switch(name: str, about: str, flag: str) -> Parameter:
    """Build an option without a value."""
    return option(name, about, flag, kind=bool, default=False)


def _build_parameter(name: str, kind: object, info: object, default: object, compute: Compute | None) -> Parameter:
    return Parameter(name, Annotated[kind, info], default, compute)


CUSTOMER = Parameter("customer", CustomerRef, REQUIRED, None)
"""A customer. The request has its name."""
WHY = option("why", "The reason, for the audit log.", "--why", kind=str, default=REQUIRED)
DRY_RUN = switch("dry_run", "Show what would come of it, and change nothing.", "--dry-run")
"""A trial, as a parameter of the query."""
IDEMPOTENCY_KEY = Parameter("idempotency_key", Key, None, None)
"""The header field Idempotency-Key."""
PREVIEW = switch("preview", "Show the date and the cost of the change, and make none.", "--dry-run")
"""A call of the endpoint that previews the change, instead of the change."""
CONTROLS = (DRY_RUN, IDEMPOTENCY_KEY, PREVIEW)
"""Parameters that are no fields of a request."""
OUTPUT = Parameter("as_json", Json, False, None)
CONNECTION = (Parameter("collector", Url, None, None), Parameter("ca", Authorities, None, None))


@dataclass(frozen=True)
class Rows:
    """Prints a list of the answer as a table."""

    name: str
    columns: tuple[str, ...]
    is_paged: bool = False
    """Fetch all pages."""
    cells: Mapping[str, Callable[[JsonObject], JsonValue]] = field(default_factory=dict)
    """Compute cells that differ from the fields of a row."""
    amounts: tuple[str, ...] = ()
    """Columns with amounts in the smallest unit of the row's currency."""

    def __call__(self, document: JsonDocument, arguments: Arguments) -> None:
        """Print the rows."""
        rows: list[JsonObject] = document[self.name]
        if not arguments["as_json"]:
            rows = [row | {column: compute(row) for column, compute in self.cells.items()} for row in rows]
            if self.amounts:
                rows = [format_money(row, *self.amounts) for row in rows]
        table(rows, self.columns, arguments["as_json"])


@dataclass(frozen=True)
class Sentence:
    """Prints a sentence with arguments and fields of the answer. Its command has no option --json."""

    text: str

    def __call__(self, document: JsonDocument, arguments: Arguments) -> None:
        """Print the sentence."""
        typer.echo(self.text.format(answer=document, **arguments))


def print_document(document: JsonObject, arguments: Arguments) -> None:
    """Print each field of the answer."""
    show(document, arguments["as_json"])


def print_secret(created: JsonObject, arguments: Arguments) -> None:
    """Print a created object. Only the secret goes to standard output, for scripts."""
    if arguments["as_json"]:
        typer.echo(json.dumps(created, indent=2))
        return
    typer.echo(f"{created.get('id') or created.get('name')}, whose secret is shown only now:", err=True)
    typer.echo(created["secret"])


def note_dry_run(arguments: Arguments, control: Parameter = DRY_RUN) -> None:
    """Print that a dry run changed nothing, unless the output is JSON."""
    if arguments[control.name] and not arguments["as_json"]:
        typer.echo("nothing was changed: it was a dry run")


def select_arguments(*names: str) -> BuildBody:
    """Return a function that builds a body of the arguments that are given and not empty."""
    return lambda _, arguments: {name: arguments[name] for name in names if arguments[name]}


class EndpointCall(NamedTuple):
    """The endpoint of a command, and the parts of its request."""

    method: str
    path: str
    """Parameters in braces are in the path, or in the query of a request that is no GET."""
    parameters: tuple[Parameter, ...]
    body: JsonObject | BuildBody | None
    """Fields beside the parameters, or a function that builds the whole body."""
    is_created_once: bool
    """Send an Idempotency-Key."""
    preview: str | None
    """The path of the endpoint that previews the change."""

    def send(self, arguments: Arguments, output: Print) -> JsonDocument:
        """Send the request and return the JSON of the answer."""
        if self.preview is not None and arguments[PREVIEW.name]:
            preview = self._replace(method="POST", path=self.preview, is_created_once=False, preview=None)
            return preview.send(arguments, output)
        api = Api(arguments["collector"], arguments["ca"])
        if arguments.get("customer"):
            arguments = {**arguments, "customer": api.resolve_customer(arguments["customer"])}
        values: dict[str, JsonValue] = {
            parameter.name: arguments[parameter.name]
            if parameter.compute is None
            else parameter.compute(api, arguments)
            for parameter in self.parameters
            if parameter not in CONTROLS
        }
        path, _, more = self.path.partition("?")
        path = PLACEHOLDER.sub(lambda match: quote(str(values.pop(match[1])), safe=""), path)
        query: dict[str, JsonValue] = {}
        for name, value in parse_qsl(more):
            placeholder = PLACEHOLDER.fullmatch(value)
            query[name] = values.pop(placeholder[1]) if placeholder else value
        body = None
        if self.method == "GET":
            query |= values
        elif callable(self.body):
            body = self.body(api, arguments)
        elif self.body is not None or values:
            fields = {
                parameter.name.removesuffix("_"): values[parameter.name]
                for parameter in self.parameters
                if parameter.is_in(values)
            }
            body = {**(self.body or {}), **fields}
        texts = {name: _format_parameter(value) for name, value in query.items()}
        if isinstance(output, Rows) and output.is_paged:
            return {output.name: api.fetch_all(path, output.name, **texts)}
        return api.call(
            self.method,
            path,
            body,
            create=self.is_created_once,
            key=arguments.get(IDEMPOTENCY_KEY.name),
            dry_run=_format_parameter(arguments.get(DRY_RUN.name)),
            query=texts,
        )


def _format_parameter(value: object) -> str | None:
    """Format a parameter of a query. A switch that is off is left out."""
    if isinstance(value, bool):
        return "true" if value else None
    return None if value is None else str(value)


ENDPOINTS: dict[Callable[..., None], EndpointCall] = {}
"""The endpoint of each command that was built."""


def build_command(
    about: str,
    method: str,
    path: str,
    *parameters: Parameter,
    body: JsonObject | BuildBody | None = None,
    output: Print = print_document,
    is_created_once: bool = False,
    preview: str | None = None,
) -> Callable[..., None]:
    """Build a command that calls an endpoint. `about` is its help."""
    call = EndpointCall(method, path, parameters, body, is_created_once, preview)

    def run(**arguments: object) -> None:
        output(call.send(arguments, output), arguments)

    options = (*parameters, *(() if isinstance(output, Sentence) else (OUTPUT,)), *CONNECTION)
    run.__doc__ = about
    run.__annotations__ = {option.name: option.annotation for option in options}
    signature = Signature(
        [
            Argument(option.name, Argument.KEYWORD_ONLY, default=option.default, annotation=option.annotation)
            for option in options
        ]
    )
    vars(run)["__signature__"] = signature
    ENDPOINTS[run] = call
    return run
