"""Public test suites of frameworks and clients: direct, behind nginx, behind the edge (docs/start/compatibility.md)."""
