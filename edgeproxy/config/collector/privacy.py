"""Personal data: `privacy` in collector.yaml."""

from pydantic import Field

from edgeproxy.config.field_types import File, Switch
from edgeproxy.config.part import Part


class Privacy(Part):
    """[Personal data](privacy.md): what makes an erasure outlive a restore, and how much is put on record."""

    erasures: File | None = Field(
        default=None,
        description="List of the customers who were erased, a line each with an id and a time. The collector appends "
        "to it, and erases again at its start whoever a restored database has back. Keep it apart from the database "
        "and its backups, such as on another disk; each collector has one of its own. By default a restored backup has "
        "back whoever was erased since.",
    )
    mask_addresses: Switch = Field(
        default=False,
        description="Whether the audit log has networks instead of addresses: `192.0.2.0/24`, `2001:db8:1::/48`. "
        "Entries that are there already stay as they are.",
    )
    pseudonyms: Switch = Field(
        default=False,
        description="Whether customers who are added from now on have a [pseudonym](privacy.md#pseudonyms), by which "
        "edges, usage and all that comes of it know them, so that their name is in one place. Once a customer has one "
        "the collector does not start without this. Customers who are there already keep their name.",
    )
    hash_end_users: Switch = Field(
        default=False,
        description="Whether [end users](privacy.md#end-users) are stored hashed by a secret of their customer: items "
        "of `unique` meters and of holdings. What is there in the clear is hashed in the background.",
    )
