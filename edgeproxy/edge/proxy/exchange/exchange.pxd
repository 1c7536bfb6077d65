cimport cython
from edgeproxy.edge.limits.limit_set cimport LimitSet as CLimitSet, SetTraits as CSetTraits
from edgeproxy.edge.limits.window cimport SlidingWindow as CPolicy
from edgeproxy.edge.proxy.connections.client_input cimport ClientInput as CClient
from edgeproxy.edge.proxy.exchange.forwarding cimport Forwarding
from edgeproxy.edge.proxy.routing.identity cimport Identity as CIdentity
from edgeproxy.edge.proxy.routing.binding cimport Route as CRoute, RouteBinding as CRouteBinding
from edgeproxy.edge.proxy.exchange.snapshot cimport Snapshot as CSnapshot

cdef class Exchange(Forwarding):
    cpdef begin(self, bytes data, Py_ssize_t end, tuple seen=*)
    @cython.locals(client=CClient, bare=bint)
    cpdef proceed(self, bytes data, Py_ssize_t end)
    @cython.locals(client=CClient, snapshot=CSnapshot, alone=bint, begin=Py_ssize_t)
    cpdef read_request(self, bytes data, Py_ssize_t end, tuple seen=*)
    @cython.locals(client=CClient, guard=CPolicy, left="long long")
    cpdef _check_guard(self)
    @cython.locals(identity=CIdentity, route=CRoute)
    cpdef _find_binding(self)
    @cython.locals(binding=CRouteBinding, limit_set=CLimitSet, traits=CSetTraits, shown=CPolicy)
    cpdef admit(self)
    @cython.locals(binding=CRouteBinding)
    cpdef _stamp(self, bytes data, Py_ssize_t end)
