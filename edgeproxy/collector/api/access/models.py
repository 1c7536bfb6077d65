"""The models of access."""

from typing import Literal

from typing_extensions import TypedDict

from edgeproxy.collector.quotas.access import AccessLimit


class Access(TypedDict):
    """Whether a customer may call now, and each limit that may refuse it."""

    customer: str
    """The customer, by name."""
    as_of: str
    """The time of this description. Counts of edges arrive within seconds."""
    may_call: Literal["yes", "partly", "no"]
    """`no`: every request is refused. `partly`: those that a reached limit holds."""
    limits: list[AccessLimit]
    """The limits: those first that refuse requests now, then the fullest."""
