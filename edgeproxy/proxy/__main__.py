"""`python -m edgeproxy.proxy`: a worker process."""

import sys

from edgeproxy.proxy.worker import main

sys.exit(main())
