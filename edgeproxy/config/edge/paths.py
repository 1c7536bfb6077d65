"""Which paths are refused though they are well-formed."""

from typing import Literal

from edgeproxy.config.part import Part

Reject = Literal["%2F", ";"]


class Paths(Part):
    """Which paths are refused though they are well-formed."""

    reject: tuple[Reject, ...] = ()
    """What no path may have: `%2F`, an escaped slash, or `;`, with which parameters of a segment begin."""
