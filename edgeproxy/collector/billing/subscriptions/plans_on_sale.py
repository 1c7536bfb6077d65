"""Plans on sale: the version of a plan that a customer gets, and whether it may be chosen. Pure."""

from collections.abc import Mapping

from edgeproxy.collector.accounts.change import ChangeRejectedError, reject_field
from edgeproxy.config.collector.catalog import (
    Plan,
    find_newest_versions,
    find_version_owner,
    get_plan_name,
    get_plan_tier,
)
from edgeproxy.config.field_codes import NOT_OFFERED


def resolve_version(plan: str, plans: Mapping[str, Plan], customer: str) -> str:
    """Return the version that a plan name or a version refers to for a customer. Raises ChangeRejectedError."""
    version = find_newest_versions(plans, customer).get(plan, plan)
    if version not in plans or find_version_owner(version) not in (None, customer):
        raise build_not_sold_error(plans, customer)
    return version


def check_sold(plan: str, plans: Mapping[str, Plan], customer: str, held: str | None = None) -> None:
    """Raise ChangeRejectedError if a customer chooses a version that is no longer on sale; only staff may assign it.

    `held` is the customer's own version, which it may keep.
    """
    sold = find_newest_versions(plans, customer)
    if plan not in (held, *sold, *sold.values()):
        raise build_not_sold_error(plans, customer)


def build_not_sold_error(plans: Mapping[str, Plan], customer: str) -> ChangeRejectedError:
    """Return the error about a plan that a customer cannot have."""
    sold = ", ".join(find_newest_versions(plans, customer))
    return reject_field("plan", f"is not on sale; write one of {sold}", NOT_OFFERED)


def get_version_of_tier(tier: str, plans: Mapping[str, Plan], customer: str) -> str:
    """Return the newest version of the plan with this tier at the edge. Raises ChangeRejectedError."""
    sold = find_newest_versions(plans, customer).values()
    tiers = {get_plan_tier(version, plans[version]): version for version in sold}
    for version in sold:
        if tier in (get_plan_tier(version, plans[version]), get_plan_name(version)):
            return version
    why = f"no plan on sale has it; write one of {', '.join(tiers)}"
    raise reject_field("tier", why, NOT_OFFERED)
