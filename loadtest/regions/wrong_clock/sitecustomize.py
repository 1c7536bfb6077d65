"""For processes with a wrong clock, before anything else: with libfaketime the shortest sleeps fail (EINVAL)."""

import select
import time

time.sleep = lambda seconds: select.select((), (), (), seconds)  # type: ignore[assignment,arg-type]
