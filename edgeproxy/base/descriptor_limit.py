"""The limit of this process's file descriptors."""

import resource


def raise_descriptor_limit() -> None:
    """Raise the limit of this process's descriptors to the maximum that the host permits."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
