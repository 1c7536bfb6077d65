"""How many there are of something, in words."""


def format_count(count: int, noun: str) -> str:
    """`1 key`, `0 keys`, `2 batches`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}{'es' if noun.endswith('ch') else 's'}"
