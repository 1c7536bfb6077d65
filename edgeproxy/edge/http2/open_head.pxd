cimport cython

@cython.locals(start=Py_ssize_t, position=Py_ssize_t, parts=list)
cpdef complete_head(known, bytes block)
