"""What is hooked, and what a hook records: points are data (``tables``), handlers are code."""
