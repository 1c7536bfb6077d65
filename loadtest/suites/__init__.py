"""Public test suites of frameworks and clients: directly, behind nginx and behind the edge (docs/compatibility.md)."""
