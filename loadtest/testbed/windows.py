"""What passed in the fullest window: the measure of every limit."""

from collections.abc import Iterable


def most_in_a_window(times: Iterable[float], window: float) -> int:
    """How many of these moments lay in the fullest window [t, t + window)."""
    times = sorted(times)
    most = first = 0
    for last, moment in enumerate(times):
        while times[first] <= moment - window:
            first += 1
        most = max(most, last - first + 1)
    return most
