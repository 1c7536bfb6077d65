"""A seed and a number reproduce a conversation, and its sound parts are valid HTTP."""

from collections import Counter

from tests.fuzz import second
from tests.fuzz.conversation import AwaitAnswers, Send
from tests.fuzz.messages import read_final, read_request, read_requests
from tests.fuzz.script import MANNERS, conversation


def test_a_conversation_follows_from_its_seed_and_number() -> None:
    for number in range(50):
        assert conversation(7, number) == conversation(7, number)
        assert conversation(7, number) != conversation(8, number)


def test_a_thousand_conversations_cover_every_manner_and_kind(seed: int) -> None:
    made = [conversation(seed, number) for number in range(1000)]
    assert {each.kind for each in made} == set(MANNERS)
    kinds = Counter(planned.kind for each in made for planned in each.planned)
    assert len(kinds) > 15
    assert any(isinstance(step, AwaitAnswers) for each in made for step in each.steps)
    assert all(step.data for each in made for step in each.steps if isinstance(step, Send))


def test_sound_requests_and_answers_are_read_alike_by_the_strict_reader_and_llhttp(seed: int) -> None:
    for number in range(300):
        created = conversation(seed, number)
        for planned in created.planned:
            if not planned.sound:
                continue
            (message,) = read_requests(planned.data)
            assert message.whole, (planned, message.why)
            assert second.of_request(planned.data[message.at :], message) == "", planned
            reply = created.replies[planned.token]
            if reply.sound:
                _, final = read_final(reply.data, 0, planned.method, ended=reply.end == "fin", sloppy=True)
                assert final is not None
                assert final.whole, (reply, final.why)
                segment = reply.data[final.at : final.end]
                assert second.of_answer(segment, final) == "", reply


def test_no_prefix_of_a_request_is_read_as_whole(seed: int) -> None:
    for number in range(40):
        for planned in conversation(seed, number).planned:
            if not planned.sound or len(planned.data) > 3000:
                continue
            for end in range(len(planned.data)):
                part = read_request(planned.data[:end])
                assert part is None or not part.whole
