"""How many descriptors this process may have."""

import resource


def raise_descriptor_limit() -> None:
    """Raise the limit of descriptors of this process to what the host allows."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
