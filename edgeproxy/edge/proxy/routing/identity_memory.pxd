cdef class RouteBindings:
    cdef public object _all, _make, binding, memory, route
    cdef public bint is_recent
    cpdef bind(self, object route, object now=*)
