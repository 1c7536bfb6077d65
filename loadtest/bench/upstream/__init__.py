"""The upstream of the peers: an nginx that is never the bottleneck, and an echo that shows received requests."""
