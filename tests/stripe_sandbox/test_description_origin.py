"""The sandbox's description is Stripe's. A contract in pyproject.toml forbids imports of billing."""

import orjson
import pytest

from stripe_sandbox.description import load_description
from stripe_sandbox.operations import OPERATIONS
from tests.support import stripe_api, stripe_types
from tests.support.stripe_sandbox import check


def test_every_operation_of_the_description_is_done() -> None:
    assert {operation.id for operation in load_description().operations} == set(OPERATIONS)


def test_the_description_is_a_part_of_stripes() -> None:
    if not stripe_api.WHOLE.exists():
        pytest.skip("Stripe's description is not beside the project")
    assert stripe_api.MADE.read_bytes() == stripe_api.made(orjson.loads(stripe_api.WHOLE.read_bytes()))


@pytest.mark.parametrize("name", stripe_types.PARTS)
def test_parts_are_of_stripes_types(name: str) -> None:
    if not stripe_types.TYPES.exists():
        pytest.skip("there is no Node here")
    assert (stripe_types.FOLDER / name).read_bytes() == stripe_types.made(name)


def test_stripes_own_examples_are_as_described() -> None:
    if not stripe_api.EXAMPLES.exists():
        pytest.skip("Stripe's description is not beside the project")
    examples = orjson.loads(stripe_api.EXAMPLES.read_bytes())["resources"]
    # The examples of a customer session and of a schedule are older than the components and pauses that the types have.
    described = load_description().schemas.keys() - {"customer_session", "subscription_schedule"}
    found = {name: example for name, example in examples.items() if name in described}
    for example in found.values():
        check({"data": {}, **example} if example["object"] == "list" else example)
    assert len(found) == 57
