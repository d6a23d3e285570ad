"""The trace: its rows and tables, its file format, the lines of the journal.

Imports the standard library alone, so that a trace from a GPU machine opens
on a laptop that has neither torch nor transformers.
"""
