"""What the documentation says that users of a hub may do."""

import re
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
HUB = DOCS / "operations" / "hub.md"
CUSTOMERS = DOCS / "customers" / "directory.md"


def rights_in(page: Path, user: str, first: str = "on >PASSWORD ") -> list[str]:
    """The rights that a page gives a user, in the command that begins so."""
    found = re.search(rf"^ACL SETUSER {user} {re.escape(first)}(.*)$", page.read_text(), re.MULTILINE)
    assert found is not None
    return found[1].split()


def documented_for_directory() -> list[str]:
    """What the documentation adds for edges to those of the hub, for the directory."""
    return ["%R~dir:*", *rights_in(HUB, "edge", "%R~dir:* ")]


def documented() -> list[str]:
    """The rights of the hub's user for edges that the documentation names."""
    return rights_in(HUB, "edge")


def documented_for_loader() -> list[str]:
    """Those of the user that loads functions."""
    return rights_in(HUB, "loader")


def documented_for_push() -> list[str]:
    """Those of the user that brings customers."""
    return rights_in(CUSTOMERS, "push")


def documented_settings() -> dict[str, str]:
    """The settings of Redis that the documentation names, by name."""
    found = re.search(r"^```text\n(proto-max-bulk-len .*?)```", HUB.read_text(), re.MULTILINE | re.DOTALL)
    assert found is not None
    return dict(line.split(" ", 1) for line in found[1].splitlines())
