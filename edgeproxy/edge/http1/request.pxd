cimport cython
from edgeproxy.edge.http1.lines cimport Field as CField, RequestLines as CRequestLines

@cython.locals(field=CField, host=CField, lines=list, dropped=list)
cpdef read_fields(block, bint trusted=*, Py_ssize_t most=*, CRequestLines request_lines=*)
