"""Usage that the bodies of answers state, such as the tokens of a model's answer: read from bytes that come in any
pieces. Pure: no I/O, no time.

The room reads and never changes what it reads. It decides neither which answers count nor what counts instead of usage
that is not stated.
"""
