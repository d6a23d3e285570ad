"""Tracing a process that runs already: finding it, talking to it, looking at where it stands."""
