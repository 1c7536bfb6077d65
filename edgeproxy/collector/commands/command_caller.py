"""Whose name the audit log has for a change that a command made."""

import getpass
import os

from edgeproxy.collector.accounts.audit import Caller


def get_command_caller() -> Caller:
    """Return the caller of this command: its user by name, or by number where the machine has no name for it, as in
    containers."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # OSError from Python 3.13 on
        name = f"uid {os.getuid()}"
    return Caller(f"command line: {name}")
