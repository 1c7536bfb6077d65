"""Signatures of files, by which a changed file is noticed without reading it."""

import os

FileSignature = tuple[int, ...] | None
"""Device, inode, size and time of change; None where there is no file, or none that may be looked at."""


def compute_file_signature(file: str | os.PathLike[str]) -> FileSignature:
    """Return a value that differs once the file does, however it was replaced. Follows links."""
    try:
        status = os.stat(file)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
