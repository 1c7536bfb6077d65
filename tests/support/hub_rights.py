"""What the documentation says that edges' user of a hub may do."""

import re
from pathlib import Path

RIGHTS = re.compile(r"^ACL SETUSER edge on >PASSWORD (.*)$", re.MULTILINE)
HUB = Path(__file__).parents[2] / "docs" / "operations" / "hub.md"


READS = re.compile(r"^ACL SETUSER edge (%R~dir:.*)$", re.MULTILINE)


def documented_for_directory() -> list[str]:
    """What the documentation adds to them for the directory."""
    found = READS.search(HUB.read_text())
    assert found is not None
    return found[1].split()


def documented() -> list[str]:
    """The rights of the hub's user that the documentation names."""
    found = RIGHTS.search(HUB.read_text())
    assert found is not None
    return found[1].split()
