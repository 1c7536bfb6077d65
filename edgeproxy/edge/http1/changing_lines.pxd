cimport cython
from edgeproxy.edge.http1.lines cimport RequestLines as CRequestLines

cpdef find_changing(bytes block, CRequestLines request_lines, Py_ssize_t most)

@cython.locals(at=Py_ssize_t, end=Py_ssize_t, prefix=bytes, line=bytes, lines=bytes)
cpdef cut_lines(bytes block, tuple changing)

@cython.locals(at=Py_ssize_t, start=Py_ssize_t, end=Py_ssize_t, beginning=bytes, key=bytes)
cpdef cut_key(bytes block, tuple beginnings)
