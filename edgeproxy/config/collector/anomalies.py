"""When usage is not as usual: `anomalies` in collector.yaml."""

import re
from typing import Annotated

from pydantic import BeforeValidator, Field

from edgeproxy.config import parsers
from edgeproxy.config.field_types import Name
from edgeproxy.config.part import Part
from edgeproxy.config.units import DAYS, format_value, read_quantity, read_switch, read_text, value_error

DAY_SECONDS = 86400.0
DECIMAL = re.compile(r"[0-9]{1,4}(?:\.[0-9]{1,6})?")
A_SCORE = "a number from 1 to 100 such as 3.0"
A_SIMILARITY = "a number from 0 to 1 such as 0.9"
KEEP_DAYS_MAX = 3650
A_KEEP = f"whole days from 1day to {KEEP_DAYS_MAX}day"
A_PAUSE_AT = "off, or a number from 2 to 1000 such as 5"


def _read_decimal(value: object, lowest: float, highest: float, hint: str) -> float:
    if isinstance(value, float):
        return value
    written = read_text(value, hint)
    if not DECIMAL.fullmatch(written) or not lowest <= float(written) <= highest:
        raise value_error(f"{format_value(written)} is out of range", hint)
    return float(written)


def read_score(value: object) -> float:
    """Read a threshold of a z-score."""
    return _read_decimal(value, 1.0, 100.0, A_SCORE)


def read_similarity(value: object) -> float:
    """Read a threshold of a cosine similarity."""
    return _read_decimal(value, 0.0, 1.0, A_SIMILARITY)


def read_pause_at(value: object) -> float | None:
    """Read at how many times what is usual a customer is paused; None: never."""
    value = parsers.read_unless_off(value)
    return None if value is None else _read_decimal(value, 2.0, 1000.0, A_PAUSE_AT)


def read_days(value: object) -> float:
    """Read seconds, whole days: `90day`."""
    if isinstance(value, float):
        return value
    days = read_quantity(value, DAYS, A_KEEP)
    if not days.is_integer() or not 1 <= days <= KEEP_DAYS_MAX:
        raise value_error(f"{format_value(str(value))} is out of range", A_KEEP)
    return days * DAY_SECONDS


Score = Annotated[float, BeforeValidator(read_score)]
Similarity = Annotated[float, BeforeValidator(read_similarity)]
PauseAt = Annotated[float | None, BeforeValidator(read_pause_at)]
Switch = Annotated[bool, BeforeValidator(read_switch)]


class Thresholds(Part):
    """From where on usage is not as usual."""

    score: Score = 3.0
    """By how many spreads an hour or a day is above what is usual: a robust z-score."""
    similarity: Similarity = 0.9
    """How like a day must be to what is usual for it: the cosine of its hours, 1 for days as they usually are."""
    pause: PauseAt = None
    """At how many times what is usual for an hour a customer is paused until a person takes that back; `off`: never."""


class OwnThresholds(Part):
    """A customer's own, in the place of those of all."""

    score: Score | None = None
    """As for all."""
    similarity: Similarity | None = None
    """As for all."""
    pause: PauseAt = Field(default_factory=lambda: None)  # Not None by default: what is not written is as for all.
    """As for all; `off`: never."""
    ignore: Switch = False
    """Whether nobody looks at this customer's usage."""


class Anomalies(Thresholds):
    """When usage is not as usual, and what is done about it."""

    enabled: Switch = True
    """Whether anybody looks."""
    keep: Annotated[float, BeforeValidator(read_days)] = 90 * DAY_SECONDS
    """How long what was found is kept."""
    customers: dict[Name, OwnThresholds] = Field(default_factory=dict)
    """Customers' own thresholds, by name."""

    def find_thresholds(self, customer: str) -> Thresholds | None:
        """Return the thresholds of a customer; None where nobody looks."""
        own = self.customers.get(customer)
        if own is None:
            return self
        if own.ignore:
            return None
        given = {name: getattr(own, name) for name in Thresholds.model_fields if name in own.model_fields_set}
        return Thresholds.model_construct(**{name: getattr(self, name) for name in Thresholds.model_fields} | given)
