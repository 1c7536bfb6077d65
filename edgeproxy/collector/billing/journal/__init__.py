"""The journal of double entries: which postings an event has (pure), and the chained rows."""
