"""Usage that the bodies of answers state, for example the tokens of a model's answer. It is read from bytes that come
in any pieces. Pure: no I/O, no time.

This package reads and never changes its input. It does not decide which answers count, nor which counts replace usage
that is not stated.
"""
