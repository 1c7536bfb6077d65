from edgeproxy.edge.limits.counts cimport Counts

cdef class LevelCounts(Counts):
    cdef public double _brief, _tick_since, _tick_until, at, level, rate
    cdef public object _level_at, _remembers, _rest, _scale, _sibling_cums, _stride, _tick_word, seen
    cpdef double level_now(self, double now, double rate) except? -1.0
    cpdef pour(self, long long cost)
    cpdef refresh(self, double now)
    cpdef _bind_columns(self)
