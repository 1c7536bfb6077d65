cimport cython
from edgeproxy.edge.http1.lines cimport Field as CField, RequestLines as CRequestLines

@cython.locals(at=Py_ssize_t, field=CField, host=CField, lines=list, dropped=list)
cpdef read_fields(bytes block, bint trusted=*, Py_ssize_t most=*, CRequestLines request_lines=*)
