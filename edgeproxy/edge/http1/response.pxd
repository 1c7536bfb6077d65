cimport cython
from edgeproxy.edge.http1.lines cimport Field as CField

@cython.locals(field=CField, lines=list, keep=list)
cpdef tuple read_plain_response(block)
