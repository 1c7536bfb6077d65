"""The oracle: judge a conversation by the bytes that the client and the upstream sent and received.

Two independent readers parse the client's stream again: a strict one and llhttp. The edge may forward each request in
it once, unchanged, or a second time if the method is idempotent. The client must get one answer for each request, in
order: the upstream's answer, whole or visibly cut, or an answer that the edge made.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator
from urllib.parse import unquote_to_bytes

from tests.fuzz import second
from tests.fuzz.conversation import SERIAL, TOKEN, Planned
from tests.fuzz.messages import Framing, Message, State, read_final, read_request
from tests.fuzz.record import Copy, Talk

IDEMPOTENT = frozenset((b"GET", b"HEAD", b"PUT", b"DELETE", b"OPTIONS"))
ATTEMPTS = 1 + 2
"""The number of times that the edge may forward a request: once on a stale reused connection, then `attempts` times."""

STAMPED = frozenset(
    (
        *(b"via", b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-request-id", b"traceparent"),
        *(b"x-edge-region", b"x-customer-id", b"x-customer-tier", b"host", b"content-length", b"transfer-encoding"),
        *(b"connection", b"upgrade", b"expect"),
    )
)
"""Fields of a forwarded request that the edge writes itself."""

ADDED = frozenset((b"content-length", b"transfer-encoding", b"connection", b"upgrade", b"x-request-id", b"date"))
"""Fields of an answer that the edge writes itself."""

PROBLEM = b"application/problem+json"
BROKEN_OFF = re.compile(rb"error=(connection_terminated|http_response_incomplete)")
"""The `Proxy-Status` error for a request whose connection the upstream closed without an answer."""


class Verdict:
    """The faults of a conversation, and counts of the outcomes of its requests."""

    def __init__(self) -> None:
        self.wrong: list[str] = []
        self.counts: Counter[str] = Counter()


def judge(talk: Talk) -> Verdict:
    """Judge a whole conversation. A caller may judge it again after more of it is known."""
    return _Judge(talk).verdict


class _Judge:
    """The judgement of one conversation, request by request."""

    def __init__(self, talk: Talk) -> None:
        self.verdict = Verdict()
        self._talk = talk
        self._sent, self._got = bytes(talk.sent), bytes(talk.got)
        self._unclaimed = list(talk.copies)
        self._at = 0
        """The start of the next answer in `got`."""
        self._seen = True
        """True while answers are still read. False once the client may have missed some of them."""
        self._raced = False
        self._walk()

    def _wrong(self, what: str) -> None:
        self.verdict.wrong.append(what)

    def _walk(self) -> None:
        talk = self._talk
        if talk.ended == "late":
            self._wrong("the conversation hung")
        start = count = 0
        going_on = True
        while going_on and (request := read_request(self._sent, start)) is not None:
            self.verdict.counts["requests"] += 1
            copies = self._claim(request)
            self._judge_copies(request, copies)
            going_on = self._judge_answer(request, copies, count) and request.whole and not request.closes
            start = request.end
            count += 1
        if self._unclaimed and not self._raced:
            for copy in self._unclaimed:
                self._wrong(f"forwarded, but not asked for here: {copy.raw[:300]!r}")
        if self._seen and not self._raced and self._at < len(self._got):
            self._wrong(f"bytes that answer nothing: {self._got[self._at : self._at + 300]!r}")

    # ---- forwarded requests

    def _claim(self, request: Message) -> list[Copy]:
        """Return the forwarded copies of this request and remove them from the unclaimed copies."""
        mine = [copy for copy in self._unclaimed if _same(request, copy.message)]
        self._unclaimed = [copy for copy in self._unclaimed if copy not in mine]
        return mine

    def _judge_copies(self, request: Message, copies: list[Copy]) -> None:
        segment = self._sent[request.at : request.end]
        for copy in copies:
            self.verdict.counts["forwarded"] += 1
            for what in _against(request, segment, copy):
                self._wrong(what)
        for copy in copies[:-1]:
            self.verdict.counts["sent again"] += 1
            if copy.sent:
                self._wrong("sent again after bytes of an answer")
            if request.method not in IDEMPOTENT:
                self._wrong("sent again, though doing it twice may do harm")
        if len(copies) > ATTEMPTS:
            self._wrong(f"forwarded {len(copies)} times")

    # ---- answers

    def _judge_answer(self, request: Message, copies: list[Copy], count: int) -> bool:
        """Judge the answer to a request. Return whether another request may follow."""
        copy = copies[-1] if copies else None
        if copy is not None and copy.raced:
            # The edge used a connection that the upstream was closing. Nothing shows which request the client's answers
            # belong to.
            self._raced, self._seen = True, False
            self.verdict.counts["raced"] += 1
        planned = self._planned(count, request)
        if not self._seen:
            return True
        ended = self._talk.ended == "eof"
        interims, final = read_final(self._got, self._at, self._method(request), ended=ended)
        self._judge_interims(request, interims, copy)
        if final is None:
            return self._no_answer(request, planned)
        self._at = final.end
        answer = self._got[final.at : final.end]
        if final.state is State.INVALID:
            self._wrong(f"no answer at all: {final.why}: {answer[:300]!r}")
            return False
        if not final.headed:
            return self._no_answer(request, planned)
        if final.whole and (against := second.of_answered(answer, final)):
            self._wrong(f"an answer was given of which {against}: {answer[:300]!r}")
        if final.framing is Framing.UNTIL_CLOSE and request.minor and request.headed:
            self._wrong("HTTP/1.1 was answered with a body that ends with the connection")
        if PROBLEM in final.all(b"content-type"):
            self._edge_made(request, final, copy, planned)
        elif copy is None:
            self._wrong(f"an answer to what was never forwarded: {answer[:300]!r}")
        else:
            self._upstreams(request, final, copy, planned)
        if not final.whole and self._talk.ended == "eof" and planned is not None and final.framing is Framing.NONE:
            self._wrong("a sound answer was cut")
        if final.status == 101:
            self._tunnel(request, final, copy)
            return False
        if not final.whole:
            self._seen = False
            return True
        return not final.closes

    def _method(self, request: Message) -> bytes:
        """Return the method that decides whether the client expects a body in the answer.

        The edge cannot parse an invalid head that begins with HEAD. It may then answer with or without a body.
        """
        if request.headed or not self._sent.startswith(b"HEAD ", request.at):
            return request.method or b"GET"
        return b"GET" if self._got.endswith(b"}") else b"HEAD"

    def _planned(self, count: int, request: Message) -> Planned | None:
        """Return the plan of this request if the edge must serve it exactly as planned."""
        conversation = self._talk.conversation
        return conversation.planned[count] if count < conversation.sound and request.whole else None

    def _no_answer(self, request: Message, planned: Planned | None) -> bool:
        """Record that the client got no answer, or only a part of a head."""
        self.verdict.counts["unanswered"] += 1
        if self._talk.ended == "eof" and request.whole:
            self._wrong("the connection was closed before a whole request was answered")
        elif planned is not None and self._talk.ended != "left" and not self._reset_behind():
            self._wrong(f"a sound request was not answered: {self._talk.ended}")
        self._seen = False
        return self._talk.ended != "eof"

    def _reset_behind(self) -> bool:
        """Return whether a later answer broke. Its reset also discards answers that the client has not read yet."""
        later = any(copy.reply is not None and not copy.reply.sound for copy in self._unclaimed)
        if self._talk.ended != "reset" or not later:
            return False
        self.verdict.counts["lost by a later reset"] += 1
        return True

    def _judge_interims(self, request: Message, interims: list[Message], copy: Copy | None) -> None:
        if not interims:
            return
        sent = iter([] if copy is None else copy.reading()[0])
        for interim in interims:
            if interim.status == 100 and not interim.fields and self._talk.finished:
                # A client that closed its sending side may be gone. The edge sends a 100 to find out.
                self.verdict.counts["asked whether it is there"] += 1
            elif not any(
                each.status == interim.status and not _extra(interim.fields, ADDED) - Counter(each.fields)
                for each in sent
            ):
                self._wrong(f"an interim answer that the upstream did not give: {interim.status} {interim.fields}")
        if not request.minor:
            self._wrong("an interim answer to HTTP/1.0")

    def _edge_made(self, request: Message, final: Message, copy: Copy | None, planned: Planned | None) -> None:
        self.verdict.counts["refused" if final.status < 500 else "failed"] += 1
        self.verdict.counts[f"edge says {final.status}"] += 1
        body = final.body
        if final.status < 400:
            self._wrong(f"the edge itself answered {final.status}")
        if SERIAL.search(self._got[final.at : final.end]):
            self._wrong("an upstream's bytes are in an answer that the edge made")
        if final.whole and final.framing is not Framing.NONE and json.loads(body)["status"] != final.status:
            self._wrong(f"a problem that says another status: {body!r}")
        if not request.whole and not final.closes:
            self._wrong("a request without a clear end was refused, and the connection kept")
        if planned is None or final.status == planned.refused:
            return
        reply = self._talk.conversation.replies[planned.token]
        if final.status == 502 and any(BROKEN_OFF.search(value) for value in final.all(b"proxy-status")):
            self.verdict.counts["met a closed connection"] += 1
        elif final.status == 408 and self._talk.slow:
            self.verdict.counts["sent too slowly"] += 1
        elif planned.refused or reply.sound:
            self._wrong(f"a sound request was answered by the edge: {final.status} {body!r}")

    def _upstreams(self, request: Message, final: Message, copy: Copy, planned: Planned | None) -> None:
        """Judge an answer that claims to come from the upstream."""
        _, given = copy.reading()
        answer = self._got[final.at : final.end]
        if given is None or not given.headed or given.status != final.status:
            self._wrong(f"not what the upstream answered: {answer[:300]!r}")
            return
        if unsent := _extra(final.fields, ADDED) - _extra(given.fields, ADDED):
            self._wrong(f"fields that the upstream did not send: {dict(unsent)}")
        dates = given.all(b"date")
        added = not dates and final.status != 101  # RFC 9110 section 6.6.1
        if len(final.all(b"date")) != 1 if added else final.all(b"date") != dates:
            self._wrong(f"neither the upstream's Date nor one that it lacked: {final.all(b'date')} for {dates}")
        head = set(SERIAL.findall(self._got[final.at : final.body_at]))  # The body is compared below.
        if strange := head - set(SERIAL.findall(bytes(copy.sent[: given.body_at]))):
            self._wrong(f"bytes of another answer: {strange}")
        if copy.message.all(b"x-request-id") != final.all(b"x-request-id"):
            self._wrong("the request id is another's")
        if final.whole:
            self.verdict.counts["answered"] += 1
            self._judge_whole(final, given, copy)
        else:
            self.verdict.counts["cut"] += 1
            if not given.body.startswith(final.body):
                self._wrong("the part that came is no part of the upstream's answer")
            reply = None if planned is None else self._talk.conversation.replies[planned.token]
            if reply is not None and reply.sound and self._talk.ended != "left" and not self._reset_behind():
                self._wrong(f"a sound answer was cut ({self._talk.ended})")

    def _judge_whole(self, final: Message, given: Message, copy: Copy) -> None:
        if not given.whole:
            self._wrong(f"a whole answer was made of one that is not: {given.state.value} {given.why}")
            return
        if final.body != given.body:
            self._wrong(f"another body than the upstream's: {len(final.body)} bytes instead of {len(given.body)}")
        if lost := set(final.trailers) - set(given.trailers):
            self._wrong(f"trailers that the upstream did not send: {lost}")
        if against := second.of_answer(bytes(copy.sent[given.at : given.end]), given):
            self._wrong(f"an answer was passed on of which {against}: {bytes(copy.sent[given.at :][:300])!r}")

    def _tunnel(self, request: Message, final: Message, copy: Copy | None) -> None:
        """Judge the bytes after a 101: the edge must pass them on unchanged in both directions."""
        self.verdict.counts["switched"] += 1
        self._at = len(self._got)
        if copy is None or not request.upgrades:
            self._wrong("protocols were switched unasked")
            return
        _, given = copy.reading()
        assert given is not None
        up, down = self._sent[request.end :], bytes(copy.sent[given.end :])
        if not up.startswith(copy.tunnelled):
            self._wrong("other bytes came out of the tunnel than went in")
        if not down.startswith(self._got[final.end :]):
            self._wrong("other bytes came back through the tunnel than were sent")
        orderly = self._talk.ended == "eof" and copy.ended == "fin"
        if orderly and (bytes(copy.tunnelled), self._got[final.end :]) != (up, down):
            self._wrong("a tunnel was closed in order, and bytes in it were lost")


def _same(request: Message, forwarded: Message) -> bool:
    """Return whether a forwarded request has the method and the target of this request."""
    return forwarded.method == request.method and _path(forwarded) == _path(request)


ABSOLUTE = re.compile(rb"(?i)https?://[^/?]*")


def _path(request: Message) -> tuple[bytes, bytes]:
    """Return the path and the query of a target, normalized as the edge does it.

    The path loses its escapes and dot segments. The query gets the escapes that the edge always adds.
    """
    target = request.target
    if (absolute := ABSOLUTE.match(target)) is not None:
        rest = target[absolute.end() :]
        target = b"*" if not rest and request.method == b"OPTIONS" else rest if rest[:1] == b"/" else b"/" + rest
    path, mark, query = target.partition(b"?")
    segments: list[bytes] = []
    parts = unquote_to_bytes(path).split(b"/")
    for part in parts:
        if part == b"..":
            del segments[-1:]
        elif part != b".":
            segments.append(part)
    if parts[-1] in (b".", b".."):
        segments.append(b"")
    query = query.replace(b'"', b"%22").replace(b"<", b"%3C").replace(b">", b"%3E")
    return b"/".join(segments), mark + query


def _against(request: Message, segment: bytes, copy: Copy) -> Iterator[str]:
    """Yield each difference between a request and its forwarded copy."""
    forwarded = copy.message
    if not request.headed:
        yield f"forwarded, though its head is none ({request.why}): {segment[:500]!r}"
        return
    head = set(TOKEN.findall(copy.raw[: forwarded.body_at]))  # The body is compared below.
    if strange := head - set(TOKEN.findall(segment[: request.body_at - request.at])):
        yield f"forwarded with bytes of another request: {strange}"
    if extra := _extra(forwarded.fields, STAMPED) - _extra(request.fields, STAMPED):
        yield f"forwarded with fields that the client did not send: {dict(extra)}"
    if forwarded.whole and not request.whole:
        yield f"forwarded as whole, though it is {request.state.value} ({request.why}): {segment[:500]!r}"
    elif forwarded.whole and forwarded.body != request.body:
        yield f"forwarded with another body: {len(forwarded.body)} bytes instead of {len(request.body)}"
    elif forwarded.whole and (against := second.of_request(segment, request)):
        yield f"forwarded, of which {against}: {segment[:500]!r}"
    elif not request.body.startswith(forwarded.body):
        yield "forwarded with a part of a body that is not its own"
    if strange_trailers := {trailer for trailer in forwarded.trailers if trailer[0] in STAMPED} | (
        set(forwarded.trailers) - set(request.trailers)
    ):
        yield f"forwarded with trailers that are none: {strange_trailers}"
    if not forwarded.upgrades and b"upgrade" in dict(forwarded.fields):
        yield "forwarded with half an upgrade"
    if forwarded.upgrades and not request.upgrades:
        yield "forwarded with an upgrade that was not asked for"


def _extra(fields: list[tuple[bytes, bytes]], known: frozenset[bytes]) -> Counter[tuple[bytes, bytes]]:
    """Return the fields whose names are not in `known`."""
    return Counter(field for field in fields if field[0] not in known)
