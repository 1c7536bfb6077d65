"""Messages between edge and collector: usage batches, key uses, the directory, quota counts. Pure."""
