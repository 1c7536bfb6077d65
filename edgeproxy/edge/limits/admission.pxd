cimport cython
from edgeproxy.edge.limits.limit_set cimport LimitSet as CLimitSet
from edgeproxy.edge.limits.window cimport SlidingWindow as CPolicy

@cython.locals(shown=CPolicy, policy=CPolicy, policies=tuple, slots=tuple, least="long long", left="long long", shares=bint)
cpdef admit_fast(CLimitSet limit_set, double now)

cpdef bint _acquire_slots(tuple slots, double now) except -1
