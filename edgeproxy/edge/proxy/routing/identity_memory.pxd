cdef class RouteBindings:
    cdef public object _all, _make, binding, key, memory, route
    cpdef bind(self, object route, object now=*)
