"""What was counted, on its way to the collector. `batch.py` is the only thing that edge and collector share."""
