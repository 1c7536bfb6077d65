"""The table of every bound of every reader, and its page."""

from collections.abc import Iterator
from typing import Final

from edgeproxy.bounds.bound import Bound, Reader, Unit
from edgeproxy.bounds.clients import CLIENTS
from edgeproxy.bounds.services import SERVICES
from edgeproxy.bounds.upstreams import UPSTREAMS

BOUNDS: Final[dict[str, Bound]] = {bound.name: bound for bound in (*CLIENTS, *UPSTREAMS, *SERVICES)}
"""All rows by name, in the order of the page."""

KIB: Final = 1024
SIZES: Final = (("MiB", KIB * KIB), ("KiB", KIB))
HEADER: Final = "| bound of | number | protocols | beyond it | at fault | why |\n|---|---|---|---|---|---|"


def format_number(bound: Bound) -> str:
    """Format the number of a bound with its unit, and the setting that gives it."""
    if bound.setting is None:
        return _format_quantity(bound)
    default = "none by default" if bound.number is None else _format_quantity(bound)
    return f"`{bound.setting}`, {default}"


def _format_quantity(bound: Bound) -> str:
    number, unit = bound.number, bound.unit.value
    assert number is not None
    if bound.unit in (Unit.BYTES, Unit.BYTES_PER_SECOND):
        for name, size in SIZES:
            if number >= size and not number % size:
                return f"{number / size:,.0f} {name}{unit.removeprefix('bytes')}"
    return f"{number:,g} {unit}".rstrip() if number < 1_000_000 else f"{number:,.0f} {unit}".rstrip()


def format_effect(bound: Bound) -> str:
    """Format what happens beyond a bound: the status, the error in Proxy-Status, and further effects."""
    error = None if bound.error is None else f"`{bound.error}`"
    answer = " ".join(filter(None, (None if bound.status is None else str(bound.status), error)))
    return "; ".join(filter(None, (answer, bound.effect)))


def render_tables() -> Iterator[str]:
    """Yield the lines of the page: a section with a table for each reader."""
    for reader in Reader:
        yield f"\n## {reader.value}\n\n{HEADER}"
        for bound in BOUNDS.values():
            if bound.reader is reader:
                protocols = ", ".join(protocol.value for protocol in bound.protocols)
                number, effect = format_number(bound), format_effect(bound)
                yield f"| {bound.subject} | {number} | {protocols} | {effect} | {bound.side.value} | {bound.reason} |"
