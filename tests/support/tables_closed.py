"""Fixture: whatever a test has opened through `tables` is closed at its end. For the conftest.py of a folder."""

from collections.abc import Iterator

import pytest

from tests.support.tables import close_all


@pytest.fixture(autouse=True)
def closed_at_the_end() -> Iterator[None]:
    """Nothing is left open by a test for the next one."""
    yield
    close_all()
