"""The operators' console, the customers' portal and the public status page."""
