"""How long a worker may be silent, counted in looks."""

from edgeproxy.supervisor.pulse import LOOKS, Pulse


def test_one_that_has_never_spoken_is_not_missed() -> None:
    pulse = Pulse()
    assert not any(pulse.look() for _ in range(3 * LOOKS))


def test_one_that_fell_silent_hangs_after_so_many_looks() -> None:
    pulse = Pulse()
    pulse.beat()
    assert [pulse.look() for _ in range(LOOKS + 1)] == [False] * LOOKS + [True]


def test_whoever_speaks_once_in_the_time_lives() -> None:
    pulse = Pulse()
    for _ in range(5):
        pulse.beat()
        assert not any(pulse.look() for _ in range(LOOKS))
