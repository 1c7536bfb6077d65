"""How many there are of something, in words."""

import pytest

from edgeproxy.plural import counted


@pytest.mark.parametrize(
    ("many", "what", "said"),
    [(0, "key", "0 keys"), (1, "key", "1 key"), (1, "batch", "1 batch"), (2, "batch", "2 batches")],
)
def test_one_is_one(many: int, what: str, said: str) -> None:
    assert counted(many, what) == said
