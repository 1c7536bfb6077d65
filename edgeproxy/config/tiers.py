"""Tiers: what holds for each of their customers."""

from typing import Annotated

from pydantic import BeforeValidator

from edgeproxy.config import parsers, units
from edgeproxy.config.field_types import Priority, Sentence
from edgeproxy.config.limits import BurstCredits, Caps, Limit, Quota
from edgeproxy.config.part import Part


class Tier(Part):
    """A plan: what holds for each of its customers."""

    limits: tuple[Limit, ...] = ()
    """What each customer of the tier may use; none: no limit."""
    concurrency: Annotated[int | None, BeforeValidator(units.read_concurrency)] = None
    """How many requests a customer may have under way at once, or `none` for any number."""
    quotas: tuple[Quota, ...] = ()
    """What is included in a day or a month; none: anything."""
    burst_credits: Annotated[BurstCredits | None, BeforeValidator(parsers.read_unless_off)] = None
    """What may be saved up for later; by default, and where it says `off`, nothing."""
    caps: Caps | None = None
    """What may be spent at most; none: anything."""
    priority: Priority = 0
    """Who is turned away first while there is too much to do: those of the lowest."""
    message: Sentence | None = None
    """What is said to those who are refused, beside why."""
    analytics: Annotated[float | None, BeforeValidator(units.read_analytics)] = None
    """For how long customers see their usage in detail; then as totals of whole months. By default always."""
