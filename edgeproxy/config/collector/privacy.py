"""Personal data: `privacy` in collector.yaml."""

from pydantic import Field

from edgeproxy.config.field_types import File, Switch
from edgeproxy.config.part import Part


class Privacy(Part):
    """[Personal data](privacy.md): keeps erasures effective after a restore, and limits the data on record."""

    erasures: File | None = Field(
        default=None,
        description="List of the erased customers, one line each with an id and a time. The collector appends to it. "
        "At its start it erases listed customers again that a restored database contains. Keep the file apart from "
        "the database and its backups, such as on another disk. Each collector has its own. By default a restored "
        "backup brings back the customers erased since.",
    )
    mask_addresses: Switch = Field(
        default=False,
        description="Makes the audit log store networks instead of addresses: `192.0.2.0/24`, `2001:db8:1::/48`. "
        "Existing entries stay as they are.",
    )
    pseudonyms: Switch = Field(
        default=False,
        description="Gives customers who are added from now on a [pseudonym](privacy.md#pseudonyms). Edges, usage and "
        "all data derived from it use the pseudonym, so that the name is in one place only. Once a customer has one, "
        "the collector does not start without this setting. Existing customers keep their name.",
    )
    hash_end_users: Switch = Field(
        default=False,
        description="Stores [end users](privacy.md#end-users) as a hash with a secret of their customer: the items of "
        "`unique` meters and of holdings. Existing clear text is hashed in the background.",
    )
