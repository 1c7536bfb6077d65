"""Requests that another proxy has, and asks about: the same keys, limits and counts, and nothing is forwarded.

nginx's auth_request asks `/v1/authorize` and says in fields what it was asked for; Envoy's ext_authz asks with the
method of its client, and puts `/v1/authorize` before the path.
"""

from typing import TYPE_CHECKING, Final

from edgeproxy.errors import Answered, Refused
from edgeproxy.http1 import message
from edgeproxy.http1.path import resolve
from edgeproxy.http1.request_line import check_sizes, read_request_line
from edgeproxy.http1.values import value
from edgeproxy.proxy.client import Client
from edgeproxy.proxy.exchange import Exchange, Outcome, Refusal
from edgeproxy.proxy.states import AWAITS_CLAIMS, PARKED

if TYPE_CHECKING:
    from edgeproxy.proxy.door import Door
    from edgeproxy.proxy.route_binding import Route

PATH: Final = b"/v1/authorize"
METHOD, URI = b"x-original-method", b"x-original-uri"

GRANTED: Final = Answered(200, "Granted")
"""The answer to what may pass."""


class Authorization(Exchange):
    """One question about a request."""

    __slots__ = ("outer",)

    def read(self, data: bytes, end: int) -> None:
        """What the question says of the request; the client is the one that the proxy asks for."""
        self.outer = b""
        if not self.client.trusted:
            raise Refused(403, "Only trusted proxies may ask here")
        super().read(data, end)
        self.outer = self.method
        method, target = self.method, self.first.split(b" ", 2)[1]
        if self.path == PATH:
            said, uri = value(self.keep, METHOD), value(self.keep, URI)
            if said is None or uri is None:
                raise Refused(400, "X-Original-Method and X-Original-URI say what is asked for, each once", close=False)
            method, target = said, uri
        elif self.path.startswith(PATH + b"/"):
            target = target[len(PATH) :]
        else:
            raise Refused(404, "Questions are asked at /v1/authorize", close=False)
        line = b"%b %b HTTP/1.1" % (method, target)
        check_sizes(len(line), 0, self.snapshot.sizes)
        request = read_request_line(line)
        if request.authority is not None:
            raise Refused(400, "X-Original-URI is a path, with its query", close=False)
        target = resolve(request.target)
        self.method, self.path = request.method, target.partition(b"?")[0]
        self.first = b"%b %b HTTP/1.1\r\n" % (self.method, target)
        self.snapshot.paths.check(self.path, self.method, self.site)

    def enter(self, door: "Door") -> None:
        """Who may come is decided here; redirects, fixed answers and preflights are the proxy's affair."""
        door.admit(self)

    def asked_about(self, refusal: Refused) -> "Route":
        """No route is found for a preflight: nobody answers it here."""
        raise refusal

    def proceed(self, data: bytes, end: int) -> Outcome:
        """Admission, and no more. It is counted as if it had been answered with 200; no concurrency is held."""
        refusing = self.admit()
        if refusing is not None:
            return self.park(AWAITS_CLAIMS, data, end) if refusing is PARKED else refusing
        self.request_id()
        self.meter(200)
        if self.limit_set is not None:
            self.reported(b"")
            self.settle(200)
        return GRANTED

    def own_answer(self, reason: Refusal, *, close: bool) -> bytes:
        """The answer to the question: 200 and whose request it is, or why it may not pass."""
        asked_for = self.method
        if reason is not GRANTED:
            self.method = self.outer  # Whether the answer has a body is a matter of the question.
            answer = super().own_answer(reason, close=close)
            self.method = asked_for
            return answer
        assert self.binding is not None
        limits = self.rate_fields() + self.notes
        fields = b"%b%b%bX-Request-Id: %b\r\n" % (self.runtime.date, self.binding.stamps, limits, self.request_id())
        self.status = 200
        self.over()
        return message.answer(200, fields, close=close, head_only=self.outer == b"HEAD")


class AskingProxy(Client):
    """The connection of a proxy that asks."""

    __slots__ = ()
    exchange_type = Authorization
