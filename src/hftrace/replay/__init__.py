"""A journal becomes a trace: reader, events, spans, loads, tensors, files. Imports the schema alone."""
