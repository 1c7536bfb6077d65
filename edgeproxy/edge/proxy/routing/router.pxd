cimport cython

@cython.locals(exact=dict, prefixes=dict, lengths=tuple, length=Py_ssize_t)
cpdef _find_routes(tuple layers, bytes path)
