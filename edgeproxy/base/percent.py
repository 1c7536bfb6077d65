"""Shares in percent for people and programs. Pure."""


def compute_percent(used: int, whole: int) -> float:
    """Return a part in percent with two places, truncated: 99.999 % is 99.99, never 100. A little is 0.01, never 0."""
    percent = used * 10_000 // whole / 100
    return percent or (0.01 if used else 0.0)
