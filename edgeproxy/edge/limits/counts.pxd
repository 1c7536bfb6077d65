from edgeproxy.edge.limits.headroom cimport Headroom as CHeadroom

cdef class CellWindow:
    cdef object __weakref__
    cdef public double _per_second, since, tails_until, until
    cdef public bint has_hub
    cdef public object _place, _seconds, cells, far_span, locals, ring, shared, span, stem, table, turn, width, words
    cdef public dict tails
    cdef public tuple places, runs, siblings
    cdef public list versions
    cdef public long long cell
    cdef public unsigned long long base
    cdef public Py_ssize_t cum_at, first, first_row, own_at, rings_words, row_words, sync_at
    cpdef advance(self, double now)

cdef class Counts:
    cdef object __weakref__
    cdef public object _generation, _subject, local, sync, turn, version
    cdef public CHeadroom headroom
    cdef public CellWindow window
    cdef public long long age, closed, own
    cdef public unsigned long long cum
    cdef public Py_ssize_t number
    cpdef refresh(self, double now)
    cpdef reload(self)
    cpdef long long read_siblings(self, long long left, long long limit, long long cost, double now) except? -9223372036854775807
    cpdef sum_siblings(self, CHeadroom headroom)
