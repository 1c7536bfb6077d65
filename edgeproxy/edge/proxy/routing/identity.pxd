from edgeproxy.edge.proxy.routing.identity_memory cimport RouteBindings

cdef class Identity(RouteBindings):
    cdef public double valid_until

cdef class KeyHolder(Identity):
    cdef public object _secret, terms
    cdef public bytes subject

cdef class Directory:
    cdef dict __dict__
    cdef object __weakref__
    cdef public object _identities
