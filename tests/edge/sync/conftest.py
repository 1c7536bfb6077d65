"""Hosts that agree on limits: the tables of a test are closed at its end."""

from tests.support.tables_closed import closed_at_the_end

__all__ = ["closed_at_the_end"]
