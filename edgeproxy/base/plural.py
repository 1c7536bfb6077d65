"""How many there are of something, in words."""


def counted(many: int, what: str) -> str:
    """`1 key`, `0 keys`, `2 batches`."""
    return f"{many} {what}" if many == 1 else f"{many} {what}{'es' if what.endswith('ch') else 's'}"
