"""Core dumps: a process with secrets in its memory must not write them to a disk."""

import resource


def forbid_core_dumps() -> None:
    """Disable core dumps of this process and its children. systemd-coredump respects the limit, too."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
