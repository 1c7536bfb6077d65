"""The rights of a hub's users in the documentation."""

import re
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
HUB = DOCS / "operations" / "hub.md"
CUSTOMERS = DOCS / "customers" / "directory.md"


def rights_in(page: Path, user: str, first: str = "on >PASSWORD ") -> list[str]:
    """Return the rights that a page gives a user, in the command that begins with `first`."""
    match = re.search(rf"^ACL SETUSER {user} {re.escape(first)}(.*)$", page.read_text(), re.MULTILINE)
    assert match is not None
    return match[1].split()


def documented_for_directory() -> list[str]:
    """Return the rights that the directory adds to the rights of edges at the hub."""
    return ["%R~dir:*", *rights_in(HUB, "edge", "%R~dir:* ")]


def documented() -> list[str]:
    """Return the documented rights of the hub's user for edges."""
    return rights_in(HUB, "edge")


def documented_for_loader() -> list[str]:
    """Return the documented rights of the user that loads functions."""
    return rights_in(HUB, "loader")


def documented_for_push() -> list[str]:
    """Return the documented rights of the user that pushes customers."""
    return rights_in(CUSTOMERS, "push")


def documented_settings() -> dict[str, str]:
    """Return the documented settings of Redis, by name."""
    match = re.search(r"^```text\n(proto-max-bulk-len .*?)```", HUB.read_text(), re.MULTILINE | re.DOTALL)
    assert match is not None
    return dict(line.split(" ", 1) for line in match[1].splitlines())
