"""What runs inside the loading process: tracer, recorder, hooks, watermarks.

Imports the standard library and :mod:`hftrace.schema` alone (the libraries being
traced are looked up in ``sys.modules``), so that it can run in any interpreter.
"""
