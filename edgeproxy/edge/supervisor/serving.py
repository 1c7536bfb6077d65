"""Which of the supervisors on one state directory serves: a token and a heartbeat in the control file.

Two kinds of process read it. Workers that lost their supervisor leave once *another* one serves and its heart
beats; until then they go on. Supervisors see by it that a newer one has taken over.

- A supervisor claims it when all of its workers are ready for the first time, whoever had it: the newest
  serves. So orphans of a dead one leave only when there is somebody in their place.
- The one that has it beats every second. An older one beside it, alive and with workers of its own, does not
  beat and takes nothing back; its workers have their channel and stay.
- The orphans of the one that has it go on in any case; of other orphans no more than make up one supervisor's workers
  with them (store.serve_on), for the next supervisor's need columns too.
- Where the heart stopped (the newest was killed, or drains), a supervisor that still serves takes over, so
  that the orphans of the newest leave in turn.
- One that drains does not beat. Where another supervisor is there, it gives the claim back (to NO_SUPERVISOR), and
  the other serves again within a second.
"""

from edgeproxy.edge.proxy.worker import HEARTBEAT_FRESH_SECONDS

NO_SUPERVISOR = 0
"""The token of none."""


def other_serves(own: int, token: int, age: float) -> bool:
    """Whether another supervisor than `own` serves, by what the control file says.

    `token` names the one that wrote there last, or is NO_SUPERVISOR; `age` is the seconds since its last heartbeat.
    """
    return token not in (NO_SUPERVISOR, own) and age < HEARTBEAT_FRESH_SECONDS
