"""The supervisor that serves, among those on one state directory: a token and a heartbeat in the control file.

Two kinds of process read it. Workers that lost their supervisor leave once *another* one serves and beats; until then
they go on. Supervisors see by it that a newer one has taken over.

- A supervisor claims it when all of its workers are ready for the first time, whoever had it: the newest
  serves. So orphans of a dead one leave only when there are workers in their place.
- The holder beats every second. An older supervisor beside it, alive and with workers of its own, does not
  beat and takes nothing back; its workers have their channel and stay.
- The orphans of the holder go on in any case; of other orphans no more than make up one supervisor's workers
  with them (store.serve_on), as the next supervisor's workers need columns too.
- Where the heartbeat stops (the newest was killed, or drains), a supervisor that still serves takes over, so
  that the orphans of the newest leave in turn.
- A supervisor that drains does not beat. Where another one is there, it gives the claim back (to
  NO_SUPERVISOR), and the other serves again within a second.
"""

from edgeproxy.edge.counters.control import HEARTBEAT_FRESH_SECONDS

NO_SUPERVISOR = 0
"""The token while no supervisor serves."""


def other_serves(own: int, token: int, age: float) -> bool:
    """Return whether another supervisor than `own` serves, by the control file.

    `token` is the last one written there, or NO_SUPERVISOR; `age` is the seconds since the last heartbeat.
    """
    return token not in (NO_SUPERVISOR, own) and age < HEARTBEAT_FRESH_SECONDS
