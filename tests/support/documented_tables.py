"""Tables of pages in docs/."""


def read_table(page: str, heading: str) -> list[list[str]]:
    """Return the cells of each row of the table whose first column has this heading."""
    lines = page.splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith(f"| {heading} |"))
    rows = []
    for line in lines[first + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows
