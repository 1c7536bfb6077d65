"""Generate conversations: the client's requests, their cuts and times, and the upstream's replies."""

from random import Random

from tests.fuzz import replies, requests
from tests.fuzz.conversation import (
    AwaitAnswers,
    AwaitGo,
    AwaitSwitch,
    Conversation,
    Finish,
    Leave,
    Pause,
    Planned,
    Send,
    Step,
    StopReading,
    token,
)

MANNERS = {
    "pipelined": 40,
    "in turns": 26,
    "pipelined, half-closed": 14,
    "cut off": 7,
    "broken off": 5,
    "slow to read": 4,
    "stalled": 1,
    "after a while": 2,
    "heavy": 2,
    "noise": 3,
}
"""The client's behaviours and their weights."""


def conversation(seed: int, number: int) -> Conversation:
    """Return the conversation with this number."""
    draw = Random(f"{seed}/{number}")
    manner = draw.choices(tuple(MANNERS), weights=tuple(MANNERS.values()))[0]
    made = Conversation(seed, number, manner)
    spoilt_requests = draw.random() < 0.45
    spoilt_replies = draw.random() < 0.35
    for _ in range(draw.choice((1, 1, 2, 2, 3, 4, 6, 12))):
        spoilt = spoilt_requests and draw.random() < 0.45
        request = requests.spoilt(draw) if spoilt else requests.sound(draw)
        made.planned.append(request)
        reply = replies.spoilt if spoilt_replies and draw.random() < 0.5 else replies.sound
        made.replies[request.token] = reply(draw, request)
        if request.last and draw.random() < 0.8:
            break
    made.sound = _sound(made.planned)
    WRITERS[manner](draw, made)
    return made


def _sound(planned: list[Planned]) -> int:
    """Return the number of valid requests, from the first on, that the edge serves whatever follows them."""
    for count, request in enumerate(planned):
        if not request.sound:
            return count
        if request.last or request.upgrade:
            return count + 1
    return len(planned)


# ---- manners


def _pipelined(draw: Random, made: Conversation) -> None:
    """Send all requests at once in random pieces, wait for the answers, then close the connection."""
    made.steps = [*_pieces(draw, b"".join(request.data for request in made.planned)), AwaitAnswers(-1), Finish()]


def _half_closed(draw: Random, made: Conversation) -> None:
    """Send all requests at once, then end the stream."""
    made.steps = [*_pieces(draw, b"".join(request.data for request in made.planned)), Finish()]


def _in_turns(draw: Random, made: Conversation) -> None:
    """Send a request, wait for its answer, and send the next request."""
    steps: list[Step] = []
    for count, request in enumerate(made.planned):
        if request.expect and draw.random() < 0.7:
            steps += _pieces(draw, request.data[: request.body_at])
            steps.append(AwaitGo(count))
            steps += _pieces(draw, request.data[request.body_at :])
        elif request.upgrade:
            steps += _pieces(draw, request.data)
            if draw.random() < 0.3:
                break  # The next bytes belong to the tunnel or, if there is none, to the next request.
            steps.append(AwaitSwitch(count))
            for _ in range(draw.choice((0, 1, 3))):
                steps += _pieces(draw, token(draw) * draw.choice((1, 10, 2000)))
            made.planned = made.planned[: count + 1]
            break
        elif len(request.data) > request.body_at and draw.random() < 0.4:
            at = draw.randrange(request.body_at, len(request.data))
            steps += [Send(request.data[:at]), Pause(draw.choice((0.005, 0.02, 0.1)))]
            steps += _pieces(draw, request.data[at:])
        else:
            steps += _pieces(draw, request.data)
        steps.append(AwaitAnswers(count + 1))
    made.steps = [*steps, Finish()] if draw.random() < 0.8 else [*steps, Leave(reset=False)]


def _cut_off(draw: Random, made: Conversation) -> None:
    """End the stream in the middle of a request."""
    data = b"".join(request.data for request in made.planned)
    at = draw.randrange(len(data))
    made.sound = min(made.sound, _before(made, at))
    made.steps = [*_pieces(draw, data[:at]), *([AwaitAnswers(made.sound)] if draw.random() < 0.5 else []), Finish()]


def _broken_off(draw: Random, made: Conversation) -> None:
    """Leave in the middle of a request, or before the answers arrive."""
    data = b"".join(request.data for request in made.planned)
    at = draw.choice((len(data), draw.randrange(len(data))))
    made.sound = 0
    wait: list[Step] = [AwaitAnswers(1)] if draw.random() < 0.3 else [Pause(draw.choice((0.0, 0.001, 0.01, 0.05)))]
    made.steps = [*_pieces(draw, data[:at]), *wait, Leave(reset=draw.random() < 0.6)]


def _slow(draw: Random, made: Conversation) -> None:
    """Stop reading for a while, although a large answer is coming."""
    asked = draw.choice(made.planned)
    if not asked.upgrade and not asked.refused:
        made.replies[asked.token] = replies.large(draw, asked)
    data = b"".join(request.data for request in made.planned)
    made.steps = [StopReading(draw.choice((0.05, 0.2, 0.5))), *_pieces(draw, data), AwaitAnswers(-1), Finish()]


def _heavy(draw: Random, made: Conversation) -> None:
    """Send more than the buffers hold to an upstream that does not read for a while."""
    request = requests.huge(draw)
    made.planned.insert(draw.randrange(len(made.planned) + 1), request)
    made.replies[request.token] = replies.slow(draw, request)
    made.sound = _sound(made.planned)
    _pipelined(draw, made)


def _stalled(draw: Random, made: Conversation) -> None:
    """Stop sending in the middle of a request, and keep the stream open."""
    data = b"".join(request.data for request in made.planned)
    at = draw.randrange(1, len(data))
    made.sound = min(made.sound, _before(made, at))
    made.steps = [*_pieces(draw, data[:at]), AwaitAnswers(-1), Finish()]


def _after_a_while(draw: Random, made: Conversation) -> None:
    """Send two requests to the service with few requests. The upstream spoils its connection between them."""
    one, other = requests.seldom(draw), requests.seldom(draw)
    made.planned, made.sound = [one, other], 2
    made.replies = {one.token: replies.spoilt_late(draw, one), other.token: replies.sound(draw, other)}
    made.steps = [Send(one.data), AwaitAnswers(1), Pause(0.5), Send(other.data), AwaitAnswers(2), Finish()]


def _noise(draw: Random, made: Conversation) -> None:
    """Send bytes that are not HTTP, sometimes followed by a request."""
    made.sound = 0
    noise = draw.randbytes(draw.choice((1, 10, 100, 5000)))
    if draw.random() < 0.3:
        noise += made.planned[0].data
    made.steps = [*_pieces(draw, noise), Finish()]


WRITERS = {
    "pipelined": _pipelined,
    "in turns": _in_turns,
    "pipelined, half-closed": _half_closed,
    "cut off": _cut_off,
    "broken off": _broken_off,
    "slow to read": _slow,
    "stalled": _stalled,
    "after a while": _after_a_while,
    "heavy": _heavy,
    "noise": _noise,
}


def _before(made: Conversation, at: int) -> int:
    """Return the number of whole requests in the first `at` bytes of the plan."""
    for count, request in enumerate(made.planned):
        at -= len(request.data)
        if at < 0:
            return count
    return len(made.planned)


def _pieces(draw: Random, data: bytes) -> list[Step]:
    """Return the bytes as one write, or as several writes at random offsets with or without pauses."""
    if len(data) < 2 or draw.random() < 0.4:
        return [Send(data)] if data else []
    most = draw.choice((2, 5, 20))
    places = sorted({draw.randrange(1, len(data)) for _ in range(draw.randint(1, most))})
    if len(data) < 200 and draw.random() < 0.05:
        places = list(range(1, len(data)))
    steps: list[Step] = []
    wait = draw.choice((0.0, 0.0, 0.001, 0.004)) if len(places) < 30 else 0.0
    for start, stop in zip([0, *places], [*places, len(data)], strict=True):
        steps.append(Send(data[start:stop]))
        if draw.random() < 0.7:
            steps.append(Pause(wait))
    return steps
