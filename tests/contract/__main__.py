"""`python -m tests.contract --beside nginx,caddy` prints other proxies' behaviour on the rows.

With `--http2` it prints the rows and plays that have no form in HTTP/2.
"""

import argparse
import sys
from collections.abc import Sequence

from tests.contract.beside.peers import PEERS
from tests.contract.beside.table import lay_out, observe
from tests.contract.over_http2 import UnsayableError, translate
from tests.contract.stance import check
from tests.contract.tables import ANSWERED, ASKED
from tests.contract.unplayed import UNPLAYED


def main(argv: Sequence[str]) -> int:
    """0, unless what `stance.py` says of the others no longer holds."""
    parser = argparse.ArgumentParser(prog="python -m tests.contract", description=__doc__)
    parser.add_argument("--beside", default="nginx,caddy", help="which proxies, separated by commas: nginx, caddy")
    parser.add_argument("--only", default="", help="only rows whose family and name have this text in them")
    parser.add_argument("--all", action="store_true", help="also rows in which all agree")
    parser.add_argument("--http2", action="store_true", help="list what HTTP/2 has no form of")
    options = parser.parse_args(argv)
    if options.http2:
        list_unsaid()
        return 0
    names = options.beside.split(",")
    if unknown := set(names) - set(PEERS):
        parser.error(f"not known: {', '.join(sorted(unknown))}")
    rows = [(family, row) for family, row in (*ASKED, *ANSWERED) if options.only in f"{family}-{row.name}"]
    cells = observe(rows, names)
    differing = lay_out(rows, cells, all_=options.all)
    print(f"\n{len(rows)} rows, {differing} in which one of {', '.join(names)} does otherwise than we do")
    outdated = check(cells)
    for line in outdated:
        print(f"stance.py: {line}")
    return 1 if outdated else 0


def list_unsaid() -> None:
    """Print the rows and plays that have no form in HTTP/2."""
    for family, row in ASKED:
        try:
            translate(row)
        except UnsayableError as reason:
            print(f"{family}-{row.name}: {reason}")
    for name, why in UNPLAYED.items():
        print(f"{name}: {why}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
