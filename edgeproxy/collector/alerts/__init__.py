"""What somebody should hear of: alerts, raised once ever, and their way to people and machines."""
