"""`python -m loadtest.bench.picture`: draw docs/limits/limits.svg, and print the table of docs/limits/limits.md."""

from pathlib import Path

from loadtest.bench.picture.drawing import drawing
from loadtest.bench.picture.traffic import outcomes, table

PICTURE = Path(__file__).parents[3] / "docs" / "limits" / "limits.svg"

if __name__ == "__main__":
    found = outcomes()
    PICTURE.write_text(drawing(found))
    print(table(found), end="")
