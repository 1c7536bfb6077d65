"""A customer's losses in a change of plan: lower limits, smaller quotas, higher prices, missing features. Pure."""

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Literal, NamedTuple

from edgeproxy.collector.pages.api import JsonDocument
from edgeproxy.collector.pages.terms import TierTerms, compute_terms
from edgeproxy.config.allowance import get_concurrency
from edgeproxy.config.tiers import Tier

LossKind = Literal["rate", "concurrency", "quota", "included", "price", "history", "feature"]


class Loss(NamedTuple):
    """A term that is worse after a change of plan."""

    kind: LossKind
    name: str
    """The limit, meter or feature concerned; empty for concurrency and history."""
    before: object
    """The term before: a number, a text of a feature, or None for no limit."""
    after: object
    """The term after the change; None if the feature is lost."""
    used: int | None = None
    """The usage of the meter in this period, if it exceeds the new term."""
    breaks: bool = False
    """True if this period's usage would lead to refused requests."""
    span: float = 0.0
    """The seconds of a rate."""


def find_losses(
    before: JsonDocument, after: JsonDocument, tiers: Mapping[str, Tier], used: Mapping[str, int]
) -> list[Loss]:
    """Return the terms that are worse in plan `after` than in plan `before`. Terms that break come first.

    `used` is the usage of this period by meter.
    """
    losses = [*_list_meter_losses(before["meters"], after["meters"], used)]
    if before["tier"] in tiers and after["tier"] in tiers:
        limited = {loss.name for loss in losses}
        terms = compute_terms(tiers[before["tier"]]), compute_terms(tiers[after["tier"]])
        losses += [loss for loss in _list_tier_losses(*terms, used) if loss.kind != "quota" or loss.name not in limited]
    losses += _list_feature_losses(before["entitlements"], after["entitlements"])
    return sorted(losses, key=lambda loss: not loss.breaks)


def _list_meter_losses(before: JsonDocument, after: JsonDocument, used: Mapping[str, int]) -> Iterator[Loss]:
    for meter, old in before.items():
        new = after.get(meter)
        if new is None:
            continue
        if _is_less(new["included"], old["included"]):
            above = used.get(meter, 0) if used.get(meter, 0) > new["included"] else None
            breaks = new["cap"] == "hard" and above is not None
            yield Loss("included", meter, old["included"], new["included"], above, breaks)
        if "price" in old and "price" in new and _unit_price(new) > _unit_price(old):
            yield Loss("price", meter, (old["price"], old.get("package", 1)), (new["price"], new.get("package", 1)))


def _list_tier_losses(before: TierTerms, after: TierTerms, used: Mapping[str, int]) -> Iterator[Loss]:
    rates = {limit.window: limit.count for limit in before.allowance.limits if limit.mode == "enforce"}
    for limit in after.allowance.limits:
        if limit.mode == "enforce" and _is_less(limit.count, rates.get(limit.window)):
            yield Loss("rate", limit.name or "", rates.get(limit.window), limit.count, span=limit.window)
    at_once, was = get_concurrency(after.allowance), get_concurrency(before.allowance)
    if _is_less(at_once, was):
        yield Loss("concurrency", "", was, at_once)
    quotas = {(quota.meter, quota.per): quota.included for quota in before.allowance.quotas}
    for quota in after.allowance.quotas:
        if _is_less(quota.included, quotas.get((quota.meter, quota.per))):
            above = used.get(quota.meter, 0) if used.get(quota.meter, 0) > quota.included else None
            breaks = quota.cap == "hard" and above is not None
            yield Loss("quota", quota.meter, quotas.get((quota.meter, quota.per)), quota.included, above, breaks)
    if _is_less(after.detail_days, before.detail_days):
        yield Loss("history", "", before.detail_days, after.detail_days)


def _list_feature_losses(before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[Loss]:
    for feature, old in before.items():
        new = after.get(feature)
        if new is None or (old.isdecimal() and new.isdecimal() and int(new) < int(old)):
            yield Loss("feature", feature, old, new)


def _is_less(new: int | None, old: int | None) -> bool:
    """Return True if a bound is lower than before; None is no bound."""
    return new is not None and (old is None or new < old)


def _unit_price(terms: JsonDocument) -> Decimal:
    return Decimal(terms["price"]) / int(terms.get("package", 1))
