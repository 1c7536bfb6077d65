"""Commands that are rows: each names an endpoint of the API, and only parameters that the endpoint has."""

from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from edgeproxy import cli
from edgeproxy.cli import api
from edgeproxy.cli.endpoint_commands import CONTROLS, DRY_RUN, ENDPOINTS, PLACEHOLDER, EndpointCall
from edgeproxy.collector.api.groups import GROUPS
from edgeproxy.collector.api.openapi import build_description
from tests.support.command_table import find_functions

COMMANDS = {words: ENDPOINTS[function] for words, function in find_functions().items() if function in ENDPOINTS}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return build_description([(group, group.endpoints) for group in GROUPS])


def find_operation(call: EndpointCall, document: dict[str, Any]) -> dict[str, Any]:
    """Return the operation of a method and path in the description of the API, whatever names its path has."""
    path = PLACEHOLDER.sub("{}", call.path.partition("?")[0])
    operations = {PLACEHOLDER.sub("{}", path): methods for path, methods in document["paths"].items()}
    operation: dict[str, Any] = operations[path][call.method.lower()]
    return operation


@pytest.mark.parametrize("words", sorted(COMMANDS))
def test_command_sends_only_parameters_of_its_endpoint(words: str, document: dict[str, Any]) -> None:
    call = COMMANDS[words]
    operation = find_operation(call, document)
    query = {parameter["name"] for parameter in operation["parameters"] if parameter["in"] == "query"}
    headers = {parameter["name"] for parameter in operation["parameters"] if parameter["in"] == "header"}
    path, _, more = call.path.partition("?")
    names = {parameter.name for parameter in call.parameters} - set(PLACEHOLDER.findall(path))
    stated = {pair.partition("=")[0] for pair in more.split("&") if pair}
    assert stated <= query
    if DRY_RUN.name in names:
        assert DRY_RUN.name in query
    if call.is_created_once:
        assert "Idempotency-Key" in headers
    if call.preview is not None:
        find_operation(call._replace(method="POST", path=call.preview), document)
    names -= {*(control.name for control in CONTROLS), *PLACEHOLDER.findall(more)}
    if call.method == "GET":
        assert names <= query
    elif not callable(call.body):
        names = {name.removesuffix("_") for name in names} | (call.body or {}).keys()
        assert names <= list_body_fields(operation, document)


def list_body_fields(operation: dict[str, Any], document: dict[str, Any]) -> set[str]:
    """Return the fields of the JSON that an operation takes."""
    content = operation.get("requestBody", {"content": {}})["content"].get("application/json")
    if content is None:
        return set()
    name = content["schema"]["$ref"].rpartition("/")[2]
    return set(document["components"]["schemas"][name]["properties"])


def test_arguments_go_where_the_endpoint_reads_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also a word of Python as a field, a switch of a query, and an argument in the query of a POST."""
    calls: list[tuple[object, ...]] = []

    def call(_: api.Api, method: str, path: str, body: object = None, **options: Any) -> Any:
        if "ref" in options["query"]:
            return {"customers": [{"name": "a b"}]}
        calls.append((method, path, body, options))
        raise typer.Exit

    monkeypatch.setattr(api.Api, "call", call)
    monkeypatch.setenv(api.TOKEN, "token")
    for words in (
        "customers raise-limit acme --factor 2 --for 8h --why launch --dry-run",
        "subscriptions end acme --when now",
        "alerts replay 7",
        "keys restore k/1",
        "subscriptions add acme standard --quantity 2 --dry-run --key once",
    ):
        assert CliRunner().invoke(cli.app, words.split()).exit_code == 0
    usual: dict[str, object] = {"create": False, "key": None, "dry_run": None, "query": {}}
    assert calls == [
        (
            "POST",
            "/v1/customers/a%20b/limits/raise",
            {"factor": 2, "for": "8h", "why": "launch"},
            {**usual, "create": True, "dry_run": "true"},
        ),
        (
            "POST",
            "/billing/subscription/cancel",
            {"when": "now"},
            {**usual, "query": {"customer": "a b"}},
        ),
        ("POST", "/v1/alerts/7/replay", None, {**usual, "query": {"channel": None}}),
        ("POST", "/v1/keys/k%2F1/restore", None, usual),
        (
            "POST",
            "/billing/subscription/preview",
            {"plan": "standard", "quantity": 2},
            {**usual, "key": "once", "query": {"customer": "a b"}},
        ),
    ]
