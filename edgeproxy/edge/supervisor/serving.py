"""The supervisor that serves, among those on one state directory: a token and a heartbeat in the control file.

Two kinds of process read it. Workers that lost their supervisor leave once *another* one serves and sends heartbeats;
until then they continue. Supervisors learn from it that a newer one has taken over.

- A supervisor claims the token when all of its workers are ready for the first time, whoever held it: the newest
  serves. So orphans of a dead supervisor leave only when there are workers in their place.
- The holder writes a heartbeat every second. An older supervisor that is alive and has workers writes none and takes
  nothing back; its workers have their channel and stay.
- The orphans of the holder always continue. Of other orphans, only as many continue as make up one supervisor's workers
  together with them (`Store.declare_orphan`), because the next supervisor's workers need columns too.
- If the heartbeat stops (the newest supervisor was killed, or drains), another one that still serves takes over, so
  that the orphans of the newest leave in turn.
- A draining supervisor writes no heartbeat. If there is another supervisor, it gives the claim back (to NO_SUPERVISOR),
  and the other one serves again within a second.
"""

from edgeproxy.edge.counters.control import HEARTBEAT_FRESH_SECONDS

NO_SUPERVISOR = 0
"""The token while no supervisor serves."""


def other_serves(own: int, token: int, age: float) -> bool:
    """Return whether another supervisor than `own` serves, by the control file.

    `token` is the last one written there, or NO_SUPERVISOR; `age` is the seconds since the last heartbeat.
    """
    return token not in (NO_SUPERVISOR, own) and age < HEARTBEAT_FRESH_SECONDS
