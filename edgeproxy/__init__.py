"""edgeproxy: an HTTP edge proxy that knows customers by API key, limits them by tier and counts every request."""

import os

__version__ = "0.1.0"

if os.environ.get("EDGEPROXY_PURE") == "1":
    from edgeproxy.base.build import run_sources

    run_sources()
