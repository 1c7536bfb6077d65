"""Usage counts on their way to the collector. Edge and collector share only `batch.py`."""
