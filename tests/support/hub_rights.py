"""What the documentation says that edges' user of a hub may do."""

import re
from pathlib import Path

RIGHTS = re.compile(r"^ACL SETUSER edge on >PASSWORD (.*)$", re.MULTILINE)
HUB = Path(__file__).parents[2] / "docs" / "operations" / "hub.md"


def documented() -> list[str]:
    """The rights of the hub's user that the documentation names."""
    found = RIGHTS.search(HUB.read_text())
    assert found is not None
    return found[1].split()
