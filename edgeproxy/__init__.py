"""edgeproxy: an HTTP edge proxy that knows customers by API key, limits them by tier and counts every request."""

__version__ = "0.1.0"
