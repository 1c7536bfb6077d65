"""A stranger writes a client of the description alone: a public generator makes one, and it works with a collector."""

import importlib
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any

import orjson
import pytest

from loadtest.testbed.collector import ADMIN, SERVICE, Collector

PACKAGE = "edgeproxy_generated_client"
BYTES = "application/octet-stream"
CONFIG = f"content_type_overrides: {{application/x-ndjson: {BYTES}, application/zip: {BYTES}}}\npost_hooks: []\n"
"""JSON lines and ZIP files are bytes to the generator; formatters need not run."""
METERS = {"requests": {"count": "requests"}}
TAGS = {"credits": "credits_"}
"""Tags whose package has another name, as Python has this one."""


@pytest.fixture(scope="module")
def selling(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    """A collector that sells plans, with their meters."""
    folder = tmp_path_factory.mktemp("selling")
    with closing(Collector(folder, f"sqlite:///{folder}/ledger.db", meters=METERS)) as collector:
        yield collector.start()


@pytest.fixture(scope="module")
def description(selling: Collector) -> dict[str, Any]:
    document: dict[str, Any] = selling.get("/v1/openapi.json", token=None).json()
    return document


@pytest.fixture(scope="module")
def folder(description: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Generate the client, and return the folder of its importable package."""
    folder = tmp_path_factory.mktemp("client")
    (folder / "openapi.json").write_bytes(orjson.dumps(description))
    (folder / "config.yaml").write_text(CONFIG)
    command = [sys.executable, "-m", "openapi_python_client", "generate", "--meta", "none", "--fail-on-warning"]
    files = ["--path", "openapi.json", "--config", "config.yaml", "--output-path", PACKAGE]
    done = subprocess.run([*command, *files], cwd=folder, capture_output=True, text=True, check=False)
    assert (done.returncode, "arning" in done.stdout + done.stderr) == (0, False), done.stdout + done.stderr
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))


def generated(name: str) -> ModuleType:
    return importlib.import_module(f"{PACKAGE}.{name}")


def test_every_operation_is_generated(description: dict[str, Any], folder: Path) -> None:
    operations = [operation for path in description["paths"].values() for operation in path.values()]
    assert len(operations) > 90
    for operation in operations:
        (tag,) = operation["tags"]
        module = generated(f"api.{TAGS.get(tag, tag).replace('-', '_')}.{operation['operationId']}")
        assert callable(module.sync_detailed), operation["operationId"]


def test_generated_client_runs_customer_and_operator_workflows(selling: Collector, folder: Path) -> None:
    models, url = generated("models"), f"http://127.0.0.1:{selling.port}"
    admin = generated("client").AuthenticatedClient(base_url=url, token=ADMIN)

    def call(operation: str, *path: str, **arguments: Any) -> Any:
        answer = generated(f"api.{operation}").sync_detailed(*path, client=admin, **arguments)
        return answer.status_code, answer.parsed

    name = "generated"
    status, customer = call("customers.post_customers", body=models.CreateCustomerRequest(name=name, tier="basic"))
    assert (status, customer.state, customer.name) == (201, "active", name)
    status, key = call("keys.post_customers_customer_keys", name, body=models.CreateKeyRequest(name="first"))
    assert (status, key.secret.startswith(key.start)) == (201, True)
    status, keys = call("keys.get_customers_customer_keys", name)
    assert (status, [key.id for key in keys.keys]) == (200, [key.id])
    subscription = models.CreateSubscriptionRequest(plan="standard")
    status, subscribed = call("billing.post_billing_subscription", body=subscription, customer=name)
    assert (status, subscribed.customer, subscribed.plan.partition("@")[0]) == (201, name, "standard")
    # The generator cannot choose between media types if one of them has a list.
    event = {"id": "1", "source": "test", "customer": name, "meter": "llm_tokens", "value": 5}
    assert selling.send("POST", "/v1/events", event, token=SERVICE).status == 202
    status, usage = call("usage.get_usage", customer=name, by="meter")
    assert (status, [(row.meter, row.value) for row in usage.rows]) == (200, [("llm_tokens", 5)])
    status, problem = call("customers.get_customers_customer", "nobody")
    assert (status, problem.status, problem.title) == (404, 404, "Not Found")
    status, problem = call("customers.post_customers", body=models.CreateCustomerRequest(name=name, tier="none"))
    assert (status, [error.field for error in problem.errors]) == (422, ["tier"])
