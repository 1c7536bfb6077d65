"""Core dumps: a process that has secrets in its memory leaves none of it on a disk."""

import resource


def forbid_core_dumps() -> None:
    """Let this process, and those that it starts, leave no core dump. systemd-coredump heeds the limit, too."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
