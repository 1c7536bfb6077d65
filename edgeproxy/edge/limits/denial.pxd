cimport cython
from edgeproxy.edge.limits.limit_set cimport LimitSet as CLimitSet
from edgeproxy.edge.limits.window cimport SlidingWindow as CPolicy

@cython.locals(rate=CPolicy)
cpdef compute_denial(CLimitSet limit_set, double now, object left=*)

@cython.locals(policy=CPolicy)
cpdef tuple _list_violated(CLimitSet limit_set, double now)
