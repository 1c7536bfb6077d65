"""The beacon: clients report to it what they measured to each region, and ask it which one is the best for them."""
