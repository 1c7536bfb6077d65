cimport cython
from edgeproxy.edge.http1.lines cimport RequestLines as CRequestLines
from edgeproxy.edge.proxy.routing.identity cimport Directory as CDirectory, Identity as CIdentity

cdef class Snapshot:
    cdef dict __dict__
    cdef object __weakref__
    cdef public tuple heads, own_lines, whole_heads
    cdef public object access_log, head_limits, max_body_bytes, paths, keyed_heads, query_key, rests, router, shared, sign, tracer, usual_line
    cdef public CRequestLines lines
    cdef public CDirectory directory
    cdef public bint has_cors, has_error_bodies, legacy_headers, records_ends, sets_region
    cdef public double body_idle, header_timeout, keepalive_idle
    @cython.locals(parts=tuple, known=tuple, meaning=tuple)
    cpdef read_new_block(self, client, bytes block)
    @cython.locals(before=Py_ssize_t, behind=Py_ssize_t, named=Py_ssize_t, known=tuple, fields=tuple)
    cpdef recall_keyed_head(self, bytes head, tuple place)
    @cython.locals(before=Py_ssize_t, behind=Py_ssize_t, named=Py_ssize_t, start=Py_ssize_t, stop=Py_ssize_t, known=tuple)
    cpdef recall_keyed_block(self, bytes data, Py_ssize_t begin, Py_ssize_t end, tuple place)
    cpdef read_block(self, bytes block, trusted)
    @cython.locals(rest=bytes, lines=bytes)
    cpdef _read_changing_block(self, bytes block, tuple changing)
    cpdef _add_key(self, bytes block, tuple others, bytes key, bytes line)
    cpdef _read_keyed_rest(self, bytes rest, tuple changing)
    cpdef _find_meaning(self, tuple fields)
    @cython.locals(people=CDirectory)
    cpdef _is_known(self, CIdentity identity)
