"""Public test suites of frameworks and clients, run directly, behind nginx and behind the edge: docs/compatibility.md."""
