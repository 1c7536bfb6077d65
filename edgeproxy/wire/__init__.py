"""What edge and collector say to each other: usage batches, key uses, the directory, quota counts. Pure."""
