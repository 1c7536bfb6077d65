"""The preferred region of a customer, which it may choose among its allowed regions."""

from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.accounts import customers
from edgeproxy.collector.accounts.audit import Caller
from edgeproxy.collector.accounts.change import reject_field
from edgeproxy.collector.accounts.models import Body, CustomerResponse, UpdateCustomerRequest
from edgeproxy.config.collector.settings import CollectorSettings
from edgeproxy.config.customers import Customer, Regions
from edgeproxy.config.field_types import Name


class PreferredRegion(Body):
    """The region that a customer prefers."""

    region: Name | None
    """The region: one of the collector's `regions.names` that may serve the customer; null: the nearest one."""


def list_choices(allow: tuple[str, ...] | None, collector_settings: CollectorSettings) -> list[str]:
    """Return the regions that a customer may prefer, in the order of the configuration."""
    names = () if collector_settings.regions is None else collector_settings.regions.names
    return [name for name in names if allow is None or name in allow]


async def put_preferred_region(
    connection: AsyncConnection, caller: Caller, ref: str, region: str | None, collector_settings: CollectorSettings
) -> tuple[CustomerResponse, int]:
    """Set the preferred region of a customer, or None. Return the customer and its version.

    Raises ChangeRejectedError.
    """
    row = await customers.get_row(connection, ref, lock=True)
    regions = Customer.model_validate_json(row.settings).regions or Regions()
    choices = list_choices(regions.allow, collector_settings)
    if region is not None and region not in choices:
        raise reject_field("region", f"is none of the customer's regions: {', '.join(choices) or 'there are none'}")
    preferred = regions.model_copy(update={"prefer": region})
    change = UpdateCustomerRequest.model_validate({}).model_copy(
        update={"regions": None if preferred == Regions() else preferred}
    )
    return await customers.update_customer(connection, caller, ref, change, collector_settings)
