"""The oracle finds each kind of fault, and finds none in a correct conversation."""

from collections.abc import Callable
from typing import Any, cast

import pytest

from tests.fuzz.conversation import Conversation, Planned, Reply
from tests.fuzz.messages import read_request
from tests.fuzz.oracle import judge
from tests.fuzz.record import Copy, Talk

ONE, OTHER = b"q00000000000001z", b"q00000000000002z"
SERIAL, STRANGE = b"r00000000000001z", b"r00000000000002z"
DATE = b"Date: Tue, 15 Nov 1994 08:12:31 GMT\r\n"


def request(mark: bytes = ONE, body: bytes = b"") -> bytes:
    """Return a client's request."""
    length = b"Content-Length: %d\r\n" % len(body) if body else b""
    return b"%b /f/%b HTTP/1.1\r\nHost: a\r\n%b\r\n%b" % (b"POST" if body else b"GET", mark, length, body)


def answer(serial: bytes = SERIAL, fields: bytes = b"", length: int = 16, body: bytes | None = None) -> bytes:
    """Return an upstream's answer."""
    content = serial if body is None else body
    fields = DATE + fields
    return b"HTTP/1.1 200 OK\r\nX-Answer: %b\r\nContent-Length: %d\r\n%b\r\n%b" % (serial, length, fields, content)


class Scene:
    """A correct conversation. Each case changes it."""

    def __init__(self) -> None:
        planned = [Planned("plain", request(), ONE, b"GET")]
        replies = {ONE: Reply("sized", sound=True, data=b"")}
        self.talk = Talk(Conversation(1, 1, "pipelined", planned, [], replies, sound=1), "127.0.0.1")
        self.talk.sent += request()
        self.talk.ended = "eof"
        self.copy = self.forwarded(request())
        self.copy.sent += answer()
        self.talk.got += answer()

    def forwarded(self, raw: bytes, serial: bytes = SERIAL) -> Copy:
        """Add a forwarded request to the conversation."""
        copy = Copy(cast(Any, None), serial)
        copy.raw = raw
        message = read_request(raw)
        assert message is not None
        copy.message = message
        copy.reply = self.talk.conversation.replies[ONE]
        copy.done = True
        self.talk.copies.append(copy)
        return copy

    def gets(self, data: bytes) -> None:
        """Replace the bytes that the client got."""
        self.talk.got[:] = data

    def sends(self, data: bytes, *, sound: int = 0) -> None:
        """Replace the bytes that the client sent."""
        self.talk.sent[:] = data
        self.talk.conversation.sound = sound


def a_body_of_another(scene: Scene) -> None:
    scene.gets(answer(body=STRANGE))


def an_answer_to_another(scene: Scene) -> None:
    scene.gets(answer(STRANGE))


def two_answers(scene: Scene) -> None:
    scene.gets(answer() * 2)


def no_answer(scene: Scene) -> None:
    scene.gets(b"")


def a_whole_answer_of_a_cut_one(scene: Scene) -> None:
    scene.copy.sent[:] = answer(length=32)


def a_whole_answer_of_a_reset_one(scene: Scene) -> None:
    scene.copy.sent[:] = b"HTTP/1.1 200 OK\r\nX-Answer: %b\r\n\r\n%b" % (SERIAL, SERIAL)
    scene.copy.ended = "rst"


def a_sound_answer_cut(scene: Scene) -> None:
    scene.gets(answer()[:-1])


def a_field_of_another(scene: Scene) -> None:
    scene.gets(answer(fields=b"Set-Cookie: a=b\r\n"))


def a_date_of_the_edges_own(scene: Scene) -> None:
    scene.gets(answer().replace(b"1994", b"2026"))


def two_dates(scene: Scene) -> None:
    scene.gets(answer(fields=DATE))


def no_date(scene: Scene) -> None:
    scene.copy.sent[:] = scene.talk.got[:] = answer().replace(DATE, b"")


def a_sound_request_refused(scene: Scene) -> None:
    problem = b'{"status":400}'
    scene.gets(
        b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/problem+json\r\nContent-Length: %d\r\n\r\n%b"
        % (len(problem), problem)
    )


def an_unasked_request(scene: Scene) -> None:
    scene.forwarded(request(OTHER))


def a_post_sent_twice(scene: Scene) -> None:
    scene.sends(request(body=b"hello"))
    scene.talk.copies.clear()
    scene.forwarded(request(body=b"hello"))
    scene.forwarded(request(body=b"hello")).sent += answer()


def sent_again_after_an_answer_began(scene: Scene) -> None:
    scene.forwarded(request()).sent += answer()


def a_token_of_another(scene: Scene) -> None:
    scene.talk.copies.clear()
    scene.forwarded(request().replace(b"Host: a", b"Host: a\r\nVia: " + OTHER)).sent += answer()


def another_body(scene: Scene) -> None:
    scene.sends(request(body=b"hello"))
    scene.talk.copies.clear()
    scene.forwarded(request(body=b"hallo")).sent += answer()


def two_framings(scene: Scene) -> None:
    scene.sends(b"GET /f/%b HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n" % ONE)


def half_a_request_as_a_whole(scene: Scene) -> None:
    scene.sends(request(body=b"hello")[:-1])
    scene.talk.copies.clear()
    scene.forwarded(request(body=b"hell")).sent += answer()


def a_field_from_nowhere(scene: Scene) -> None:
    scene.talk.copies.clear()
    scene.forwarded(request().replace(b"Host", b"Cookie: a\r\nHost")).sent += answer()


def protocols_switched_unasked(scene: Scene) -> None:
    switch = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
    scene.copy.sent[:] = switch
    scene.gets(switch)


def an_interim_answer_from_nowhere(scene: Scene) -> None:
    scene.gets(b"HTTP/1.1 103 Early Hints\r\n\r\n" + answer())


def a_hang(scene: Scene) -> None:
    scene.talk.ended = "late"


CASES: dict[Callable[[Scene], None], str] = {
    a_body_of_another: "another body|bytes of another answer",
    an_answer_to_another: "fields that the upstream did not send|bytes of another",
    two_answers: "bytes that answer nothing",
    no_answer: "closed before a whole request was answered",
    a_whole_answer_of_a_cut_one: "a whole answer was made of one that is not",
    a_whole_answer_of_a_reset_one: "a whole answer was made of one that is not",
    a_sound_answer_cut: "a sound answer was cut",
    a_field_of_another: "fields that the upstream did not send",
    a_date_of_the_edges_own: "neither the upstream's Date",
    two_dates: "neither the upstream's Date",
    no_date: "neither the upstream's Date",
    a_sound_request_refused: "a sound request was answered by the edge",
    an_unasked_request: "forwarded, but not asked for here",
    a_post_sent_twice: "doing it twice may do harm",
    sent_again_after_an_answer_began: "sent again after bytes of an answer",
    a_token_of_another: "forwarded with bytes of another request",
    another_body: "forwarded with another body",
    two_framings: "forwarded, though its head is none",
    half_a_request_as_a_whole: "forwarded as whole, though it is partial",
    a_field_from_nowhere: "forwarded with fields that the client did not send",
    protocols_switched_unasked: "protocols were switched unasked",
    an_interim_answer_from_nowhere: "an interim answer that the upstream did not give",
    a_hang: "hung",
}


def test_correct_conversation_has_no_fault() -> None:
    verdict = judge(Scene().talk)
    assert verdict.wrong == []
    assert verdict.counts == {"requests": 1, "forwarded": 1, "answered": 1}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_oracle_finds_the_fault_of_each_case(case: Callable[[Scene], None]) -> None:
    scene = Scene()
    case(scene)
    found = judge(scene.talk).wrong
    assert any(part in wrong for wrong in found for part in CASES[case].split("|")), found
