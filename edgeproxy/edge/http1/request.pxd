cimport cython
from edgeproxy.edge.http1.lines cimport Field as CField, RequestLines as CRequestLines

cpdef read_fields(bytes block, bint trusted=*, Py_ssize_t most=*, CRequestLines request_lines=*)

@cython.locals(at=Py_ssize_t, field=CField, host=CField, lines=list, dropped=list)
cpdef read_plain_fields(bytes block, Py_ssize_t most=*, CRequestLines request_lines=*)
