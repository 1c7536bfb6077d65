cimport cython

@cython.locals(state=list, parts=list, byte="unsigned char")
cpdef bytes decode(bytes data)
