"""`python -m edgeproxy`: the same as the command."""

from edgeproxy.cli import main

main()
