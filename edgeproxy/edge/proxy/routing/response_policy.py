"""Response policies: a route's changes to the head of an upstream's answer.

Most routes change nothing, and have none.
"""

from typing import TYPE_CHECKING

from edgeproxy.edge.http1.field_values import find_value, remove_fields
from edgeproxy.edge.http1.security_fields import BITS, parse_flags
from edgeproxy.edge.proxy.routing.cors import ORIGIN, RESPONSE_FIELDS
from edgeproxy.edge.proxy.routing.rewriting import FieldEdit
from edgeproxy.edge.proxy.transport.compression import CompressibleRequest, Compression, Compressor

if TYPE_CHECKING:
    from typing import Protocol

    from edgeproxy.config.edge.compression import Compress
    from edgeproxy.config.edge.rewrites import ResponseFields
    from edgeproxy.edge.http1.response import ResponseHead
    from edgeproxy.edge.proxy.routing.cors import CrossOrigin
    from edgeproxy.edge.proxy.upstreams.affinity import Affinity, AnsweredRequest

    class PolicyRequest(CompressibleRequest, AnsweredRequest, Protocol):
        """The interface of a request to policies, see `Exchange`."""


class ResponsePolicy:
    """The policy of one route. `cors`: None if upstreams send their own CORS fields."""

    def __init__(
        self,
        fields: "ResponseFields",
        cors: "CrossOrigin | None",
        compress: "Compress | None" = None,
        affinity: "Affinity | None" = None,
    ) -> None:
        """`affinity`: None if the edge sets no cookie that names an endpoint."""
        self._edit = FieldEdit(fields)
        self._compression = None if compress is None else Compression(compress)
        self._cors = cors
        self._affinity = None if affinity is None or affinity.cookie is None else affinity
        self._flags = 0
        for name, field_value in fields.set.items():
            if name.lower().encode() in BITS:
                self._flags |= parse_flags(name.lower().encode(), field_value.encode())

    def __bool__(self) -> bool:
        """Return whether it does anything."""
        policies = (self._cors, self._compression, self._affinity)
        return bool(self._edit) or any(policy is not None for policy in policies)

    def apply(self, head: "ResponseHead", request: "PolicyRequest") -> Compressor | None:
        """Change the head of an answer for the client. Return the compressor of its content, if it is compressed."""
        lines = head.keep
        if self._edit:
            lines = self._edit(lines)
            head.flags |= self._flags
        if self._cors is not None:
            lines = remove_fields(lines, RESPONSE_FIELDS) + self._cors.format_fields(find_value(request.keep, ORIGIN))
        if self._affinity is not None:
            lines += self._affinity.format_missing_cookie(request)
        head.keep = lines
        return None if self._compression is None else self._compression.apply(head, request)
