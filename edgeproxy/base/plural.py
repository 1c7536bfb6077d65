"""Counts with their nouns."""


def format_count(count: int, noun: str) -> str:
    """Format a count: `1 key`, `0 keys`, `2 batches`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}{'es' if noun.endswith('ch') else 's'}"
