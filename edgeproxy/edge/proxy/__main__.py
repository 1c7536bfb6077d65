"""`python -m edgeproxy.edge.proxy`: a worker process."""

import sys

from edgeproxy.edge.proxy.process.worker import main

sys.exit(main())
