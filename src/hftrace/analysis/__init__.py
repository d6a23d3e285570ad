"""Pure functions of traces: what the views need and the file does not hold."""
