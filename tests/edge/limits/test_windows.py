"""The reference window that judges limits."""

from loadtest.testbed.windows import most_in_a_window


def test_the_fullest_window_is_found() -> None:
    assert most_in_a_window([], 0.5) == 0
    assert most_in_a_window([0.61, 0.0, 0.1, 0.5, 0.55, 2.0], 0.5) == 3
    assert most_in_a_window([0.0, 59.9, 60.0, 100.0], 60) == 3, "a window has its beginning, and not its end"
    assert most_in_a_window([0.0, 60.0, 120.0], 60) == 1
