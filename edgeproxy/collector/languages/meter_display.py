"""The display of a meter: its label, its unit, and the number of units in a displayed price. Pure."""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Literal, NamedTuple

from edgeproxy.config.meters import DEFAULT_UNITS, Meter, UnitName

ABBREVIATIONS = frozenset({"ai", "api", "cpu", "gb", "gpu", "http", "id", "kb", "llm", "mb", "pdf", "sms", "tb", "url"})
"""Words that are written in capitals."""


class MeterDisplay(NamedTuple):
    """The display of a meter."""

    label: str
    unit: UnitName | Literal[""]
    """Empty if it has no word."""
    scale: int | None
    """The units of a displayed price; None: as many as make it readable."""

    @property
    def has_larger_units(self) -> bool:
        """Return True if quantities use a larger unit: bytes in GB, seconds in hours."""
        return self.unit == "bytes" or (self.unit == "seconds" and self.scale is not None)


def find_display(meters: Mapping[str, Meter], name: str) -> MeterDisplay:
    """Return the display of a meter from its settings, or else from its name and measure."""
    meter = meters.get(name)
    if meter is None:
        return MeterDisplay(format_label(name), "", None)
    unit: UnitName | Literal[""] = meter.unit or DEFAULT_UNITS.get(meter.count) or ""
    return MeterDisplay(meter.label or format_label(name), unit, meter.scale)


def find_worded_display(meters: Mapping[str, Meter], name: str, say: Callable[[str], str]) -> MeterDisplay:
    """Return the display of a meter for a reader. `say` translates labels that it knows."""
    display = find_display(meters, name)
    return display._replace(label=say(display.label))


@lru_cache(maxsize=1024)  # Hundreds of lines of an invoice have few names.
def format_label(name: str) -> str:
    """Return the name of a meter or dimension as a label: `llm_tokens` becomes `LLM tokens`."""
    words = name.replace("_", " ").replace("-", " ").split(" ")
    label = " ".join(word.upper() if word in ABBREVIATIONS else word for word in words)
    return label[:1].upper() + label[1:]
