"""The caller in the audit log for changes by commands."""

import getpass
import os

from edgeproxy.collector.accounts.audit import Caller


def get_command_caller() -> Caller:
    """Return the caller of this command: the user's name, or its number if it has no name, as in containers."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # OSError from Python 3.13 on
        name = f"uid {os.getuid()}"
    return Caller(f"command line: {name}")
