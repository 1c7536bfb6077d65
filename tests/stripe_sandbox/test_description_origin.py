"""The sandbox is a second opinion:

it imports nothing of the rest of `collector/billing/`, and its description is Stripe's.
"""

import ast

import orjson
import pytest

from edgeproxy.stripe_sandbox.description import description
from edgeproxy.stripe_sandbox.operations import OPERATIONS
from tests.support import stripe_api
from tests.support.process import ROOT
from tests.support.stripe_sandbox import check

SANDBOX = "edgeproxy.stripe_sandbox"


def test_nothing_of_billing_is_imported() -> None:
    names = set()
    for file in (ROOT / "edgeproxy/stripe_sandbox").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom):
                names |= {f"{node.module}.{one.name}" for one in node.names}
            elif isinstance(node, ast.Import):
                names |= {one.name for one in node.names}
    ours = {name for name in names if name.startswith("edgeproxy.collector.billing")}
    assert ours
    assert not [name for name in ours if not name.startswith(SANDBOX)]


def test_every_operation_of_the_description_is_done() -> None:
    assert {one.id for one in description().operations} == set(OPERATIONS)


def test_the_description_is_a_part_of_stripes() -> None:
    if not stripe_api.WHOLE.exists():
        pytest.skip("Stripe's description is not beside the project")
    assert stripe_api.MADE.read_bytes() == stripe_api.made(orjson.loads(stripe_api.WHOLE.read_bytes()))


def test_stripes_own_examples_are_as_described() -> None:
    if not stripe_api.EXAMPLES.exists():
        pytest.skip("Stripe's description is not beside the project")
    examples = orjson.loads(stripe_api.EXAMPLES.read_bytes())["resources"]
    found = {name: example for name, example in examples.items() if name in description().schemas}
    for example in found.values():
        check({"data": {}, **example} if example["object"] == "list" else example)
    assert len(found) == 47
