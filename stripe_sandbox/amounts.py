"""Amounts of money: whole cents, computed from decimals with one rounding. Pure."""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import NamedTuple

from stripe_sandbox.transaction import Fields

PLACES = 12
"""Decimal places of a unit price."""


def round_to_cents(amount: Fraction) -> int:
    """Round to whole cents, half a cent away from zero."""
    whole = int(abs(amount) + Fraction(1, 2))
    return whole if amount >= 0 else -whole


def format_decimal(amount: Fraction | int) -> str:
    """Format a decimal as Stripe writes it: without trailing zeros."""
    scaled = int(amount * 10**PLACES)
    sign, digits = "-" * (scaled < 0), str(abs(scaled)).rjust(PLACES + 1, "0")
    return sign + f"{digits[:-PLACES]}.{digits[-PLACES:]}".rstrip("0").rstrip(".")


class Part(NamedTuple):
    """The charge of a quantity in one tier."""

    quantity: int
    unit: Fraction
    """Cents a unit."""
    flat: Fraction
    """Cents beside the units, once."""

    @property
    def amount(self) -> int:
        """The charge in whole cents."""
        return round_to_cents(self.quantity * self.unit + self.flat)


def split_by_tier(price: Fields, quantity: int) -> list[Part]:
    """Split the charge of a quantity by tier; a tier that is not reached has no part."""
    quantity = max(quantity, 0)
    if price["billing_scheme"] == "per_unit":
        return [Part(count_packages(price, quantity), get_unit_cents(price), Fraction(0))]
    if price["tiers_mode"] == "volume":
        for tier in price["tiers"]:
            if tier["up_to"] is None or quantity <= tier["up_to"]:
                return [Part(quantity, get_unit_cents(tier), get_flat_cents(tier))]
    return split_graduated(price["tiers"], quantity)


def split_graduated(tiers: Sequence[Fields], quantity: int) -> list[Part]:
    """Split a quantity over graduated tiers: each unit costs what its tier says."""
    parts: list[Part] = []
    below = 0
    for tier in tiers:
        top = quantity if tier["up_to"] is None else min(tier["up_to"], quantity)
        if top > below or not parts:
            parts.append(
                Part(
                    top - below, get_unit_cents(tier), get_flat_cents(tier) if top > below or not below else Fraction(0)
                )
            )
        below = max(below, top)
    return parts


def count_packages(price: Fields, quantity: int) -> int:
    """Return the charged units: the packages of the quantity if the price is for packages."""
    transform = price.get("transform_quantity")
    if transform is None:
        return quantity
    whole, rest = divmod(quantity, int(transform["divide_by"]))
    return whole + (1 if rest and transform["round"] == "up" else 0)


def get_unit_cents(price: Fields) -> Fraction:
    """Return the cents a unit of a price or a tier."""
    written = price.get("unit_amount_decimal")
    return Fraction(written if written is not None else price.get("unit_amount") or 0)


def get_flat_cents(tier: Fields) -> Fraction:
    """Return the cents that a tier costs once."""
    written = tier.get("flat_amount_decimal")
    return Fraction(written if written is not None else tier.get("flat_amount") or 0)


def format_unit_amounts(amount: Mapping[str, str | int | None]) -> tuple[int | None, str | None]:
    """Return `unit_amount` and `unit_amount_decimal` of a price or a tier, as answered."""
    whole, written = amount.get("unit_amount"), amount.get("unit_amount_decimal")
    exact = Fraction(written) if written is not None else None if whole is None else Fraction(whole)
    if exact is None:
        return None, None
    return int(exact) if exact.denominator == 1 else None, format_decimal(exact)


def split_proportionally(amount: int, weights: Sequence[int]) -> list[int]:
    """Split an amount in proportion to weights, in whole cents; the largest remainders get the cents that are left."""
    whole = sum(weights)
    parts = [amount * weight // whole for weight in weights]
    order = sorted(range(len(weights)), key=lambda place: -(amount * weights[place] % whole))
    for place in order[: amount - sum(parts)]:
        parts[place] += 1
    return parts
