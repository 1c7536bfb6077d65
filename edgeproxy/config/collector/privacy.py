"""Personal data: `privacy` in collector.yaml."""

from pydantic import Field

from edgeproxy.config.field_types import File
from edgeproxy.config.part import Part


class Privacy(Part):
    """[Personal data](privacy.md): what makes an erasure outlive a restore."""

    erasures: File = Field(
        description="List of the customers who were erased, a line each with an id and a time. The collector appends "
        "to it, and erases again at its start whoever a restored database has back. Keep it apart from the database "
        "and its backups, such as on another disk; each collector has one of its own."
    )
