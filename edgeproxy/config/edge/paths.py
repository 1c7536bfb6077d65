"""Well-formed paths that are refused."""

from typing import Literal

from pydantic import Field

from edgeproxy.config.part import Part

Reject = Literal["%2F", ";"]


class Paths(Part):
    """[Paths](compatibility.md#paths) that are well-formed but refused."""

    reject: tuple[Reject, ...] = Field(
        default=(),
        description="Characters that get 400. `%2F`, an escaped slash: reject it if no upstream has names with slashes "
        "in its paths. `;` starts parameters of a segment. Java's servers drop these before they look at the path: "
        "reject it if a route guards one of their prefixes.",
    )
