"""The trace: its model, its file format, the journal and the replay of a journal.

Imports the standard library alone, so that a trace from a GPU machine opens
on a laptop that has neither torch nor transformers.
"""
