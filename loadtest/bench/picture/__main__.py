"""`python -m loadtest.bench.picture`: draw docs/limits.svg anew, and print the table that docs/limits.md has of it."""

from pathlib import Path

from loadtest.bench.picture.drawing import drawing
from loadtest.bench.picture.traffic import outcomes, table

PICTURE = Path(__file__).parents[3] / "docs" / "limits.svg"

if __name__ == "__main__":
    found = outcomes()
    PICTURE.write_text(drawing(found))
    print(table(found), end="")
