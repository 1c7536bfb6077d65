"""How a file is known to be another one than before, without reading it."""

import os

FileSignature = tuple[int, ...] | None
"""Device, inode, size and time of change; None where there is no file, or none that may be looked at."""


def sign(file: str | os.PathLike[str]) -> FileSignature:
    """Return a value that differs once the file does, however it was replaced. Follows links."""
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
