"""Fixtures: the Stripe sandbox. Stripe's package takes a while to import, so only tests that want it wait."""

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.stripe_sandbox import Api, Sandbox

TEST_KEY = os.environ.get("STRIPE_SECRET_KEY", "")
"""A key of Stripe's test mode, where tests are to be held against that too."""
APIS = ("sandbox", "test mode") if TEST_KEY.startswith("sk_test_") else ("sandbox",)


@pytest.fixture(scope="session")
def stripe_sandbox(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Sandbox]":
    """A sandbox that tests share, without rate limits and lag. Each makes customers of its own, takes back the
    faults that it asks for, and does not end it.
    """
    from tests.support.stripe_sandbox import Sandbox

    with closing(Sandbox(tmp_path_factory.mktemp("stripe"))) as made:
        yield made.start()


@pytest.fixture(scope="module")
def own_sandbox(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Sandbox]":
    """A sandbox of a module's own, for tests whose faults must meet nobody else's calls."""
    from tests.support.stripe_sandbox import Sandbox

    with closing(Sandbox(tmp_path_factory.mktemp("stripe"))) as made:
        yield made.start()


@pytest.fixture
def new_sandbox(tmp_path: Path) -> "Iterator[Sandbox]":
    """A sandbox of a test's own, whose clock nobody has moved yet."""
    from tests.support.stripe_sandbox import Sandbox

    with closing(Sandbox(tmp_path / "stripe")) as made:
        yield made.start()


@pytest.fixture(params=APIS)
def stripe_api(request: pytest.FixtureRequest) -> "Api":
    """The sandbox, and Stripe's own test mode where STRIPE_SECRET_KEY is a key of it."""
    from tests.support.stripe_sandbox import Api, TestMode

    if request.param == "test mode":
        return TestMode(TEST_KEY)
    shared: Api = request.getfixturevalue("stripe_sandbox")
    return shared
