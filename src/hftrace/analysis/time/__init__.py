"""Where the time went: the tree of spans, lanes, reading, the time until a model is ready."""
