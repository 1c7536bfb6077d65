"""Fixtures: the Stripe sandbox. Stripe's package takes a while to import, so only tests that use it import it."""

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.stripe_sandbox import Api, Sandbox

TEST_KEY = os.environ.get("STRIPE_SECRET_KEY", "")
"""A key of Stripe's test mode, to run the tests against Stripe too."""
APIS = ("sandbox", "test mode") if TEST_KEY.startswith("sk_test_") else ("sandbox",)


@pytest.fixture(scope="session")
def stripe_sandbox(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Sandbox]":
    """A sandbox that tests share, without rate limits and lag.

    Each test creates its own customers, removes the faults that it sets, and does not stop the sandbox.
    """
    from tests.support.stripe_sandbox import Sandbox

    with closing(Sandbox(tmp_path_factory.mktemp("stripe"))) as sandbox:
        yield sandbox.start()


@pytest.fixture(scope="module")
def own_sandbox(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Sandbox]":
    """A sandbox for one module, whose faults must not meet other tests' calls."""
    from tests.support.stripe_sandbox import Sandbox

    with closing(Sandbox(tmp_path_factory.mktemp("stripe"))) as sandbox:
        yield sandbox.start()


@pytest.fixture
def new_sandbox(tmp_path: Path) -> "Iterator[Sandbox]":
    """A sandbox for one test, with an unmoved clock."""
    from tests.support.stripe_sandbox import Sandbox

    with closing(Sandbox(tmp_path / "stripe")) as sandbox:
        yield sandbox.start()


@pytest.fixture(params=APIS)
def stripe_api(request: pytest.FixtureRequest) -> "Api":
    """The sandbox, and Stripe's own test mode if STRIPE_SECRET_KEY is a test key."""
    from tests.support.stripe_sandbox import Api, TestMode

    if request.param == "test mode":
        return TestMode(TEST_KEY)
    shared: Api = request.getfixturevalue("stripe_sandbox")
    return shared
