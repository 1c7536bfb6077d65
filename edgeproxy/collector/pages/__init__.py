"""Pages that people look at: the operators' console, the customers' portal, the public status."""
