"""Detection of anomalies: `anomalies` in collector.yaml."""

import re
from typing import Annotated

from pydantic import BeforeValidator, Field

from edgeproxy.config import parsers
from edgeproxy.config.field_types import Name, Switch
from edgeproxy.config.forms import OFF, build_any_of, build_text, written
from edgeproxy.config.part import Part
from edgeproxy.config.units import DAY_SECONDS, Days, format_value, read_text, value_error

DECIMAL = re.compile(r"[0-9]{1,4}(?:\.[0-9]{1,6})?")
A_SCORE = "a number from 1 to 100 such as 3.0"
A_SIMILARITY = "a number from 0 to 1 such as 0.9"
KEEP_DAYS_MAX = 3650
A_SHARE = "off, or a number from 0 to 1 such as 0.2"
A_PAUSE_AT = "off, or a number from 2 to 1000 such as 5"


def _read_decimal(value: object, lowest: float, highest: float, hint: str) -> float:
    if isinstance(value, float):
        return value
    written = read_text(value, hint)
    if not DECIMAL.fullmatch(written) or not lowest <= float(written) <= highest:
        raise value_error(f"{format_value(written)} is out of range", hint)
    return float(written)


@written(build_text("number from 1 to 100", DECIMAL.pattern, "3.0"))
def read_score(value: object) -> float:
    """Read a threshold of a z-score."""
    return _read_decimal(value, 1.0, 100.0, A_SCORE)


@written(build_text("number from 0 to 1", DECIMAL.pattern, "0.9"))
def read_similarity(value: object) -> float:
    """Read a threshold of a cosine similarity."""
    return _read_decimal(value, 0.0, 1.0, A_SIMILARITY)


@written(
    build_any_of(OFF, build_text("number from 2 to 1000", DECIMAL.pattern, "5")),
    lambda times: "off" if times is None else f"{times:g}",
)
def read_pause_at(value: object) -> float | None:
    """Read the multiple of usual usage that pauses a customer. None: no multiple does."""
    value = parsers.read_unless_off(value)
    return None if value is None else _read_decimal(value, 2.0, 1000.0, A_PAUSE_AT)


@written(
    build_any_of(OFF, build_text("number from 0 to 1", DECIMAL.pattern, "0.2")),
    lambda share: "off" if share is None else f"{share:g}",
)
def read_share(value: object) -> float | None:
    """Read a share. None: shares are not checked."""
    value = parsers.read_unless_off(value)
    return None if value is None else _read_decimal(value, 0.0, 1.0, A_SHARE)


Score = Annotated[float, BeforeValidator(read_score)]
Similarity = Annotated[float, BeforeValidator(read_similarity)]
PauseAt = Annotated[float | None, BeforeValidator(read_pause_at)]


class Thresholds(Part):
    """Thresholds of anomalies."""

    score: Score = Field(
        default=3.0,
        description="Robust z-score of an hour or a day that is too far above the usual. Raise it if there are too "
        "many alerts.",
    )
    similarity: Similarity = Field(
        default=0.9,
        description="Cosine similarity of a day's hours to the usual ones. Lower it if days differ. `0` judges the "
        "volume only.",
    )
    pause: PauseAt = Field(
        default=None,
        description="Multiple of an hour's usual usage that pauses a customer until a person resumes it.",
    )


class OwnThresholds(Part):
    """A customer's own thresholds."""

    score: Score | None = Field(default=None, description="Own score. By default the score for all customers.")
    similarity: Similarity | None = Field(
        default=None, description="Own similarity. By default the similarity for all customers."
    )
    pause: PauseAt = Field(  # Not a plain None: an unset field means the general value.
        default_factory=lambda: None,
        description="Own multiple; `off` exempts the customer. By default the multiple for all customers.",
    )
    ignore: Switch = Field(default=False, description="Ignores this customer's usage.")


class Anomalies(Thresholds):
    """[Anomalies](anomalies.md) in usage. A reload applies all of it."""

    enabled: Switch = Field(default=True, description="Detects anomalies.")
    keep: Annotated[float, BeforeValidator(Days(1, KEEP_DAYS_MAX))] = Field(
        default=90 * DAY_SECONDS, description="How long findings are kept."
    )
    estimates: Annotated[float | None, BeforeValidator(read_share)] = Field(
        default=0.2,
        description="Share of a customer's daily units that raises an alert if edges "
        "[estimated](ai.md#what-is-not-stated) them, because answers did not state them. It applies to meters with "
        "the dimension `estimated`, from 1,000 estimated units on. `off`: never.",
    )
    customers: dict[Name, OwnThresholds] = Field(
        default_factory=dict, description="Customers' own thresholds, by name."
    )

    def find_thresholds(self, customer: str) -> Thresholds | None:
        """Return the thresholds of a customer. None: detection is off for it."""
        own = self.customers.get(customer)
        if own is None:
            return self
        if own.ignore:
            return None
        given = {name: getattr(own, name) for name in Thresholds.model_fields if name in own.model_fields_set}
        return Thresholds.model_construct(**{name: getattr(self, name) for name in Thresholds.model_fields} | given)
