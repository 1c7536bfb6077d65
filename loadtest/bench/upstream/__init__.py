"""What the peers proxy to: an nginx that is never the bottleneck, and an echo that shows what it was sent."""
