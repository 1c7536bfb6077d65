cimport cython
from edgeproxy.edge.http1.lines cimport RequestLines as CRequestLines
from edgeproxy.edge.proxy.identity cimport Directory as CDirectory, Identity as CIdentity

cdef class Snapshot:
    cdef dict __dict__
    cdef object __weakref__
    cdef public tuple heads, whole_heads
    cdef public object access_log, head_limits, max_body_bytes, paths, query_key, router, sign, tracer, usual_line
    cdef public CRequestLines lines
    cdef public CDirectory directory
    cdef public bint has_own_fields, legacy_headers, records_ends, security_headers, sets_region
    cdef public double body_idle, header_timeout, keepalive_idle
    @cython.locals(identity=CIdentity, people=CDirectory)
    cpdef read_block(self, bytes block, trusted)
