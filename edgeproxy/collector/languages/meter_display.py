"""How people read a meter: what it is called, its unit, and for how many units its price is. Pure."""

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

from edgeproxy.config.meters import DEFAULT_UNITS, Meter, UnitName

ABBREVIATIONS = frozenset({"ai", "api", "cpu", "gb", "gpu", "http", "id", "kb", "llm", "mb", "pdf", "sms", "tb", "url"})
"""Words of names that people write in capitals."""


class MeterDisplay(NamedTuple):
    """How pages write a meter."""

    label: str
    unit: UnitName | Literal[""]
    """Empty where there is no word for it."""
    scale: int | None
    """The units that a price is for; None: as many as make it readable."""

    @property
    def has_larger_units(self) -> bool:
        """Return whether its quantities are written in a larger unit: bytes in GB, seconds in hours."""
        return self.unit == "bytes" or (self.unit == "seconds" and self.scale is not None)


def find_display(meters: Mapping[str, Meter], name: str) -> MeterDisplay:
    """Return how a meter is written, by its settings or else by its name and what it counts."""
    meter = meters.get(name)
    if meter is None:
        return MeterDisplay(format_label(name), "", None)
    unit: UnitName | Literal[""] = meter.unit or DEFAULT_UNITS.get(meter.count) or ""
    return MeterDisplay(meter.label or format_label(name), unit, meter.scale)


def find_worded_display(meters: Mapping[str, Meter], name: str, say: Callable[[str], str]) -> MeterDisplay:
    """Return how a meter is written for a reader, by whose language `say` translates labels that it knows."""
    display = find_display(meters, name)
    return display._replace(label=say(display.label))


def format_label(name: str) -> str:
    """Return the name of a meter or a dimension as a label for people: `llm_tokens` is `LLM tokens`."""
    words = name.replace("_", " ").replace("-", " ").split(" ")
    label = " ".join(word.upper() if word in ABBREVIATIONS else word for word in words)
    return label[:1].upper() + label[1:]
