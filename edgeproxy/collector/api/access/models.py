"""The models of access."""

from typing import Literal

from typing_extensions import TypedDict

from edgeproxy.collector.quotas.access import AccessLimit


class Access(TypedDict):
    """The answer to whether a customer may call now, with each limit that may refuse its requests."""

    customer: str
    """The customer, by name."""
    as_of: str
    """The time of this answer. Counts of edges arrive within seconds."""
    may_call: Literal["yes", "partly", "no"]
    """`yes`; `partly` if a reached limit refuses some requests; `no` if every request is refused."""
    limits: list[AccessLimit]
    """The limits: first the ones that refuse requests now, then the fullest."""
