"""The site of these tests."""

from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.support.site import PagesStage


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PagesStage]:
    """A site that the tests of a file share."""
    with closing(PagesStage(tmp_path_factory.mktemp("pages"))) as stage:
        yield stage
