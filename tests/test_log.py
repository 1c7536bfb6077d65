"""What is said seldom."""

import pytest

from edgeproxy import log


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which a test changes."""
    now = [0.0]
    monkeypatch.setattr(log, "monotonic", lambda: now[0])
    return now


def said(capsys: pytest.CaptureFixture[str]) -> int:
    """Lines since this was last asked."""
    return "".join(capsys.readouterr()).count("\n")


def test_the_same_thing_is_said_once_in_a_time(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    seldom = log.Seldom(10.0)
    lines = []
    for clock[0] in (0.0, 9.0, 10.0, 19.0, 20.0):
        seldom.error("broke", "this")
        lines.append(said(capsys))
    assert lines == [1, 0, 1, 0, 1]


def test_different_things_are_said_each(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    seldom = log.Seldom(10.0)
    for event, about in (("broke", "this"), ("broke", "that"), ("went", "this")):
        seldom.error(event, about)
    assert said(capsys) == 3


def test_of_very_many_things_few_are_said_and_none_is_remembered_for_ever(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    """As of a client that has all the addresses of a network."""
    seldom = log.Seldom(10.0)
    for number in range(10 * log.REMEMBERED_MAX):
        seldom.error("refused", str(number))
    assert said(capsys) == len(seldom._said) == log.REMEMBERED_MAX
    clock[0] = 10.0
    seldom.error("refused", "another")
    assert said(capsys) == len(seldom._said) == 1
