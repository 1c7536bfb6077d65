"""Reporting usage from a service: an event that was accepted is counted once, whatever is killed or away meanwhile.

    from edgeproxy.client import EventClient

    client = EventClient("http://127.0.0.1:9100", token, queue="/var/lib/worker/events", source="worker")
    client.report("acme", "tokens", 1200, dimensions={"model": "m1"})

It needs the standard library alone.
"""

from edgeproxy.client.event_client import EventClient
from edgeproxy.client.queue import QueueBusyError, QueueFullError

__all__ = ["EventClient", "QueueBusyError", "QueueFullError"]
