"""`python -m edgeproxy`: the same as the command."""

import sys

if not sys.flags.safe_path:
    # Python put the current directory first. It is the operator's, and its files are no modules of ours.
    del sys.path[0]

from edgeproxy.cli import start

start()
