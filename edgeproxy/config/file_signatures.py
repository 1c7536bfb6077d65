"""Signatures of files, which show a change without reading the file."""

import os

FileSignature = tuple[int, ...] | None
"""Device, inode, size and modification time. None: the file does not exist or cannot be accessed."""


def compute_file_signature(file: str | os.PathLike[str]) -> FileSignature:
    """Return a value that changes whenever the file changes or is replaced. Follows links."""
    try:
        status = os.stat(file)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
