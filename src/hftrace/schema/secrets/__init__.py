"""What is a secret: by its name, by its shape, and by being the value of one that was seen before.

:mod:`hftrace.schema.redact` is the gate that text goes through before it is written; the rules are here.
"""
